-- KEYS: deployment. ARGV: id, lease in ms (0: the agent leaves), what it says (JSON). Answers the state, 'forgotten' or
-- 'missing'.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
if ARGV[2] == '0' then
    redis.call('DEL', key('agent', ARGV[1]))
else
    redis.call('SET', key('agent', ARGV[1]), ARGV[3], 'PX', ARGV[2])
end
return settle(ARGV[1])
