-- KEYS: job. ARGV: id. Removes a job that has ended, with its events and its idempotency key.
local id = ARGV[1]
local held = redis.call('HMGET', KEYS[1], 'status', 'idempotency', 'owner')
if held[1] and not TERMINAL[held[1]] then
    return 'active'
end
redis.call('ZREM', PREFIX .. 'index', id)
redis.call('ZREM', PREFIX .. 'ended', id)
redis.call('SREM', PREFIX .. 'untidy', id)
if not held[1] then
    return 'missing'
end
if held[2] and held[2] ~= '' and redis.call('HGET', held[2], 'job') == id then
    redis.call('DEL', held[2])
end
redis.call('DEL', KEYS[1], key('events', id), key('tail', id))
redis.call('ZREM', key('status', held[1]), id)
redis.call('ZREM', PREFIX .. 'owner:' .. held[3], id)
return 'deleted'
