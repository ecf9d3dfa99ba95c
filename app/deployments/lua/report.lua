-- KEYS: deployment. ARGV: id, lease in ms (0: the agent leaves), what it says (JSON), who it is. Answers the state,
-- 'forgotten', 'missing', or 'other' where another agent has the deployment.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
local before = leased(key('agent', ARGV[1]))
if before and cjson.decode(before).agent ~= ARGV[4] then
    return 'other'
end
if ARGV[2] == '0' then
    redis.call('DEL', key('agent', ARGV[1]))
else
    redis.call('SET', key('agent', ARGV[1]), ARGV[3], 'PX', ARGV[2])
end
return settle(ARGV[1])
