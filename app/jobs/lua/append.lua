-- KEYS: job. ARGV: id, attempt, event type, event body, progress JSON or ''
-- An event of a running attempt. Answers the status, or 'stale'.
local held = redis.call('HMGET', KEYS[1], 'status', 'attempt')
if held[2] ~= ARGV[2] or (held[1] ~= 'running' and held[1] ~= 'cancelling') then
    return 'stale'
end
local at = now()
redis.call('HSET', KEYS[1], 'updated_at', at)
if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[1], 'progress', ARGV[5])
end
emit(ARGV[1], ARGV[3], ARGV[4] .. ',"attempt":' .. held[2], at)
return held[1]
