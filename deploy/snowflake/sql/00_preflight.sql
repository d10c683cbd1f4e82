-- Fails, with what to do, before anything is made. Run every file with: snow sql -f <file>
EXECUTE IMMEDIATE $$
DECLARE
    wrong_role EXCEPTION (-20001, 'CURRENT_ROLE() is ACCOUNTADMIN: services cannot be owned by it; use role SYSADMIN or one of your own');
    no_warehouse EXCEPTION (-20002, 'no warehouse in this session; USE WAREHOUSE <name> first');
BEGIN
    IF (CURRENT_ROLE() = 'ACCOUNTADMIN') THEN
        RAISE wrong_role;
    END IF;
    IF (CURRENT_WAREHOUSE() IS NULL) THEN
        RAISE no_warehouse;
    END IF;
    RETURN 'READY';
END;
$$;
