-- KEYS: deployment. ARGV: id, sample id, sample (JSON), most that wait, expiry in ms. Answers 1, or 0 where it is full
-- or the deployment is gone. Samples expire in the order in which they came.
local queue = key('queue', ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('EXISTS', key('sample', ARGV[1], ARGV[2])) == 1 then
    return redis.call('EXISTS', KEYS[1])
end
while true do
    local oldest = redis.call('LINDEX', queue, 0)
    if not oldest or redis.call('EXISTS', key('sample', ARGV[1], oldest)) == 1 then
        break
    end
    redis.call('LPOP', queue)
end
if redis.call('LLEN', queue) >= tonumber(ARGV[4]) then
    return 0
end
redis.call('SET', key('sample', ARGV[1], ARGV[2]), ARGV[3], 'PX', ARGV[5])
redis.call('RPUSH', queue, ARGV[2])
redis.call('PEXPIRE', queue, ARGV[5])
note_disk(ARGV[5])
return 1
