-- KEYS: job. ARGV: id, worker, token, most tries. Answers what became of it, the attempt, and the request's digest.
-- 'tries' counts the claims that were not released again; 'attempt' is the fence and only ever grows.
local id = ARGV[1]
local held = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'tries', 'token', 'started_at', 'request')
local status = held[1]
if not status then
    return {'missing', 0, ''}
end
if TERMINAL[status] then
    return {'terminal', held[2], ''}
end
if status ~= 'queued' and held[4] == ARGV[3] then
    return {'claimed', held[2], held[6]}
end
if status == 'cancelling' then
    finish(id, status, 'cancelled', held[2], '')
    return {'terminal', held[2], ''}
end
if tonumber(held[3]) >= tonumber(ARGV[4]) then
    return {'exhausted', held[2], ''}
end
local at = now()
local attempt = redis.call('HINCRBY', KEYS[1], 'attempt', 1)
redis.call('HINCRBY', KEYS[1], 'tries', 1)
move(id, status, 'running')
redis.call('HSET', KEYS[1], 'worker', ARGV[2], 'token', ARGV[3], 'updated_at', at)
if not held[5] then
    redis.call('HSET', KEYS[1], 'started_at', at)
end
emit_state(id, 'running', attempt, at)
return {'claimed', attempt, held[6]}
