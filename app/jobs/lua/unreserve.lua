-- KEYS: idempotency key. ARGV: token. Gives back a reservation that came to nothing.
local held = redis.call('HMGET', KEYS[1], 'token', 'job')
if held[1] == ARGV[1] and not held[2] then
    redis.call('DEL', KEYS[1])
end
return 1
