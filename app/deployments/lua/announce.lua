-- KEYS: the agents that announced themselves. ARGV: agent ('': only read), lease in ms (0: it leaves), its announcement
-- (JSON). Answers every announcement whose lease holds.
if ARGV[1] ~= '' then
    if ARGV[2] == '0' then
        redis.call('DEL', key('host', ARGV[1]))
    else
        redis.call('SET', key('host', ARGV[1]), ARGV[3], 'PX', ARGV[2])
        redis.call('HSET', KEYS[1], ARGV[1], '1')
        redis.call('EXPIRE', KEYS[1], 3600)
    end
end
local found = {}
for _, agent in ipairs(redis.call('HKEYS', KEYS[1])) do
    local announced = leased(key('host', agent))
    if announced then
        found[#found + 1] = announced
    else
        redis.call('HDEL', KEYS[1], agent)
    end
end
return found
