-- KEYS: deployment. ARGV: id, replica id, lease in ms (0: it leaves), what it says of itself (JSON). Answers 'done' or
-- 'missing'.
local id, replica = ARGV[1], ARGV[2]
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
local before = redis.call('HGET', key('replicas', id), replica)
if ARGV[3] == '0' then
    redis.call('DEL', key('replica', id, replica))
    if before then
        redis.call('HDEL', key('replicas', id), replica)
        say_replica(id, replica, cjson.decode(before).role, 'draining', 'It has ended.', now())
    end
    settle(id)
    return 'done'
end
redis.call('SET', key('replica', id, replica), ARGV[4], 'PX', ARGV[3])
local said = cjson.decode(ARGV[4])
local brief = cjson.encode({said.role, said.state})
local was = before and cjson.decode(before) or nil
if not was or was.brief ~= brief then
    redis.call('HSET', key('replicas', id), replica, cjson.encode({role = said.role, brief = brief}))
    say_replica(id, replica, said.role, said.state, said.reason, now())
end
settle(id)
return 'done'
