-- KEYS: job. ARGV: id. Removes a job that has ended, with its events and its idempotency key.
local held = redis.call('HMGET', KEYS[1], 'status', 'idempotency', 'owner')
if not held[1] then
    redis.call('ZREM', PREFIX .. 'index', ARGV[1])
    return 'missing'
end
if not TERMINAL[held[1]] then
    return 'active'
end
if held[2] and held[2] ~= '' and redis.call('HGET', held[2], 'job') == ARGV[1] then
    redis.call('DEL', held[2])
end
redis.call('DEL', KEYS[1], key('events', ARGV[1]), key('request', ARGV[1]))
redis.call('ZREM', PREFIX .. 'index', ARGV[1])
redis.call('ZREM', PREFIX .. 'owner:' .. held[3], ARGV[1])
redis.call('ZREM', key('status', held[1]), ARGV[1])
return 'deleted'
