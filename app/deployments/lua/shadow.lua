-- KEYS: deployment. ARGV: id, what the shadow process found (JSON). Answers 'done', or 'missing' where the deployment is
-- gone, of which nothing is kept.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
redis.call('SET', key('shadow', ARGV[1]), ARGV[2])
return 'done'
