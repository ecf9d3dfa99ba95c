-- KEYS: clock. ARGV: most seconds that count as passed since the last tick.
-- How long the service has served, in seconds: what has passed between ticks, by Redis's clock. A clock that jumps adds
-- little or nothing, and neither does the time in which nobody ticks.
local at = tonumber(now())
local passed = at - tonumber(redis.call('HGET', KEYS[1], 'at') or at)
local served = tonumber(redis.call('HGET', KEYS[1], 'served') or 0) + math.max(0, math.min(passed, tonumber(ARGV[1])))
redis.call('HSET', KEYS[1], 'at', string.format('%.6f', at), 'served', string.format('%.6f', served))
return string.format('%.6f', served)
