-- KEYS: deployment. ARGV: id, lease in ms (0: the agent leaves), what it says (JSON), who it is. Answers the state,
-- 'forgotten', 'missing', or 'other' where another agent has one of its places.
local id, lease, who = ARGV[1], ARGV[2], ARGV[4]
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
local places = cjson.decode(ARGV[3]).places or {}
for _, other in ipairs(reports(id)) do
    for place in pairs(other.agent ~= who and other.places or {}) do
        if places[place] then
            return 'other'
        end
    end
end
if lease == '0' then
    redis.call('DEL', key('agent', id, who))
else
    redis.call('SET', key('agent', id, who), ARGV[3], 'PX', lease)
    redis.call('HSET', key('agents', id), who, '1')
end
return settle(id)
