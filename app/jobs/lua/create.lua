-- KEYS: job, idempotency key or ''.
-- ARGV: id, most queued jobs, fingerprint, owner, most queued jobs of an owner, then fields and values
-- Answers what became of it, the time of creation or, where the key stands for another job, that job's id, and how many
-- of the owner's jobs wait before it.
local id = ARGV[1]
if redis.call('EXISTS', KEYS[1]) == 1 then
    return {'created', redis.call('HGET', KEYS[1], 'created_at'), redis.call('ZRANK', key('queued', ARGV[4]), id) or 0}
end
if KEYS[2] ~= '' then
    local held = redis.call('HMGET', KEYS[2], 'fingerprint', 'job')
    if held[1] then
        return {held[1] == ARGV[3] and 'replayed' or 'conflict', held[2], 0}
    end
end
if redis.call('ZCARD', PREFIX .. 'status:queued') >= tonumber(ARGV[2]) then
    return {'queue_full', '', 0}
end
if redis.call('ZCARD', key('queued', ARGV[4])) >= tonumber(ARGV[5]) then
    return {'owner_full', '', 0}
end
local at = now()
redis.call('HSET', KEYS[1], 'id', id, 'status', 'queued', 'attempt', 0, 'tries', 0, 'events', 0,
    'created_at', at, 'queued_at', at, 'updated_at', at, 'idempotency', KEYS[2], 'owner', ARGV[4])
for i = 6, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    if ARGV[i] == 'deployment' then
        redis.call('SADD', PREFIX .. 'unsettled', id)
    end
end
redis.call('ZADD', PREFIX .. 'index', 0, id)
redis.call('ZADD', PREFIX .. 'owner:' .. ARGV[4], 0, id)
redis.call('ZADD', PREFIX .. 'status:queued', 0, id)
line_up(id, ARGV[4])
if KEYS[2] ~= '' then
    redis.call('HSET', KEYS[2], 'fingerprint', ARGV[3], 'job', id)
end
emit_state(id, 'queued', 0, at)
return {'created', at, redis.call('ZRANK', key('queued', ARGV[4]), id)}
