-- KEYS: job. ARGV: id, attempt
-- Gives a running attempt back to the queue; it does not count as a try. Answers the status then, or 'stale'.
local held = redis.call('HMGET', KEYS[1], 'status', 'attempt')
local status = held[1]
if not status or held[2] ~= ARGV[2] then
    return 'stale'
end
if status == 'cancelling' then
    finish(ARGV[1], status, 'cancelled', held[2], '')
    return 'cancelled'
end
if status ~= 'running' then
    return status
end
local at = now()
move(ARGV[1], status, 'queued')
redis.call('HINCRBY', KEYS[1], 'tries', -1)
redis.call('HDEL', KEYS[1], 'worker', 'token')
redis.call('HSET', KEYS[1], 'queued_at', at, 'updated_at', at)
emit_state(ARGV[1], 'queued', held[2], at)
return 'queued'
