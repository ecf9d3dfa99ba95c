-- KEYS: deployment. ARGV: id, token, event type, the JSON of its further fields. Answers 'done' or 'missing'.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
if not repeated(ARGV[1], ARGV[2]) then
    emit(ARGV[1], ARGV[3], ARGV[4], now())
end
return 'done'
