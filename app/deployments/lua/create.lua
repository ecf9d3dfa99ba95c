-- KEYS: deployment, idempotency key or ''. ARGV: id, name, fingerprint, turn or '', then fields and values (JSON).
-- Answers 'created', the id that has the name or the key, or 'again' where `turn` is outdated.
local id = ARGV[1]
local taken = redis.call('HGET', PREFIX .. 'names', ARGV[2])
if taken then
    return taken == id and 'created' or taken
end
local holder = KEYS[2] ~= '' and redis.call('HGET', KEYS[2], 'job')
if holder then
    return holder
end
if outdated(ARGV[4]) then
    return 'again'
end
count_again(id)
local at = now()
redis.call('HSET', KEYS[1], 'events', 0, 'created_at', at, 'updated_at', at, 'promotions', 0, 'rollbacks', 0)
for i = 5, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
if held(id, 'activated_at') then
    redis.call('HSET', KEYS[1], 'activated_at', at)
end
redis.call('HSET', PREFIX .. 'names', ARGV[2], id)
redis.call('ZADD', PREFIX .. 'index', 0, id)
if KEYS[2] ~= '' then
    redis.call('HSET', KEYS[2], 'fingerprint', ARGV[3], 'job', id)
    redis.call('HSET', KEYS[1], 'hold', KEYS[2])
end
emit(id, 'created', ',"version":' .. redis.call('HGET', KEYS[1], 'active_version'), at)
settle(id)
return 'created'
