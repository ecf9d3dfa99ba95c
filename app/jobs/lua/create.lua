-- KEYS: job, idempotency key or ''.
-- ARGV: id, request, request bytes, most queued jobs, most request bytes, fingerprint, token,
-- reservation's ttl_ms, ttl_s, owner, most queued jobs of an owner, then fields and values
-- Answers what became of it, and the time of creation or, where the key stands for another job, that job's id.
local id = ARGV[1]
local bytes = tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[1]) == 1 then
    return {'created', redis.call('HGET', KEYS[1], 'created_at')}
end
if KEYS[2] ~= '' then
    local held = reserve(KEYS[2], ARGV[6], ARGV[7], ARGV[8])
    if held[1] ~= 'reserved' then
        return held
    end
end
local kept = tonumber(redis.call('GET', PREFIX .. 'request-bytes') or '0')
local full = ''
if redis.call('ZCARD', PREFIX .. 'status:queued') >= tonumber(ARGV[4]) or kept + bytes > tonumber(ARGV[5]) then
    full = 'queue_full'
elseif tonumber(redis.call('HGET', PREFIX .. 'queued-by-owner', ARGV[10]) or '0') >= tonumber(ARGV[11]) then
    full = 'owner_full'
end
if full ~= '' then
    if KEYS[2] ~= '' then
        redis.call('DEL', KEYS[2])
    end
    return {full, ''}
end
local at = now()
redis.call('HSET', KEYS[1], 'id', id, 'status', 'queued', 'attempt', 0, 'tries', 0, 'events', 0,
    'request_bytes', bytes, 'created_at', at, 'queued_at', at, 'updated_at', at, 'idempotency', KEYS[2], 'owner', ARGV[10])
for i = 12, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('SET', key('request', id), ARGV[2])
redis.call('INCRBY', PREFIX .. 'request-bytes', bytes)
redis.call('ZADD', PREFIX .. 'index', 0, id)
redis.call('ZADD', PREFIX .. 'owner:' .. ARGV[10], 0, id)
redis.call('ZADD', PREFIX .. 'status:queued', 0, id)
count_queued(ARGV[10], 1)
if KEYS[2] ~= '' then
    redis.call('HSET', KEYS[2], 'job', id)
    redis.call('EXPIRE', KEYS[2], ARGV[9])
end
emit_state(id, 'queued', 0, at)
return {'created', at}
