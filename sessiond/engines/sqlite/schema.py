"""The tables, and the ordered steps that bring an older file up to date. A step that was released is never edited.

A step may call size_of_row(namespace, key, kind, user, expires_at, version, sealed), with texts as blobs: what
`record.size_of` says of the record in that row, 0 if it is damaged. It is there for as long as the file is brought up to date.
"""

APPLICATION_ID = 0x53455353  # "SESS", in the file's header: a file of another program is never touched

STEPS = (
    # 1
    """
    create table sessions (
        namespace  text    not null,
        key        blob    not null,  -- SHA-256 of the sid
        kind       integer not null,  -- 0 destroyed: a mark until the next sweep, 1 session, 2 alias
        user       text,
        expires_at integer not null,  -- ms since the epoch; of a destroyed session, the instant it went
        version    integer not null,
        sealed     blob    not null,  -- the whole record, and the check of this row
        primary key (namespace, key)
    ) strict;

    -- Some 17 minutes wide: a renewal seldom moves a row in this index.
    create index sessions_by_expiry on sessions (expires_at >> 20);

    create index sessions_by_user on sessions (namespace, user, key) where kind = 1 and user is not null;

    -- How many rows of kind 1 there are, by user; user '' is the namespace. Kept by triggers, in the same commit.
    create table tallies (
        namespace text    not null,
        user      text    not null,
        sessions  integer not null,
        primary key (namespace, user)
    ) strict, without rowid;

    create trigger sessions_added after insert on sessions when new.kind = 1 begin
        insert into tallies values (new.namespace, '', 1)
            on conflict do update set sessions = sessions + 1;
        insert into tallies select new.namespace, new.user, 1 where new.user is not null
            on conflict do update set sessions = sessions + 1;
    end;

    create trigger sessions_removed after delete on sessions when old.kind = 1 begin
        update tallies set sessions = sessions - 1 where namespace = old.namespace and user in ('', old.user);
        delete from tallies where namespace = old.namespace and user = old.user and sessions = 0;
    end;

    create trigger sessions_changed after update of kind, user on sessions
        when (old.kind = 1 or new.kind = 1) and (old.kind <> new.kind or old.user is not new.user)
    begin
        update tallies set sessions = sessions - 1
            where old.kind = 1 and namespace = old.namespace and user in ('', old.user);
        delete from tallies where old.kind = 1 and namespace = old.namespace and user = old.user and sessions = 0;
        insert into tallies select new.namespace, '', 1 where new.kind = 1
            on conflict do update set sessions = sessions + 1;
        insert into tallies select new.namespace, new.user, 1 where new.kind = 1 and new.user is not null
            on conflict do update set sessions = sessions + 1;
    end;

    -- What the sweep leaves of sessions that died by themselves, for whoever wants to be told.
    create table expiries (
        number     integer primary key autoincrement,
        namespace  text    not null,
        key        blob    not null,
        user       text,
        expired_at integer not null
    ) strict;
    """,
    # 2: what quotas are measured against, why a session ended, and how late it has been.
    """
    alter table sessions add column size integer not null default 0;  -- record.size_of; of what is no session, 0
    update sessions set size =
        size_of_row(cast(namespace as blob), key, kind, cast(user as blob), expires_at, version, sealed)
        where kind = 1;

    -- The sizes of a namespace's sessions together, in its row of user ''; in the users' rows 0.
    alter table tallies add column bytes integer not null default 0;
    update tallies set bytes =
        (select ifnull(sum(size), 0) from sessions where sessions.namespace = tallies.namespace and kind = 1)
        where user = '';

    drop trigger sessions_added;
    create trigger sessions_added after insert on sessions when new.kind = 1 begin
        insert into tallies values (new.namespace, '', 1, new.size)
            on conflict do update set sessions = sessions + 1, bytes = bytes + excluded.bytes;
        insert into tallies select new.namespace, new.user, 1, 0 where new.user is not null
            on conflict do update set sessions = sessions + 1;
    end;

    drop trigger sessions_removed;
    create trigger sessions_removed after delete on sessions when old.kind = 1 begin
        update tallies set sessions = sessions - 1, bytes = bytes - iif(user = '', old.size, 0)
            where namespace = old.namespace and user in ('', old.user);
        delete from tallies where namespace = old.namespace and user = old.user and sessions = 0;
    end;

    drop trigger sessions_changed;
    create trigger sessions_changed after update of kind, user on sessions
        when (old.kind = 1 or new.kind = 1) and (old.kind <> new.kind or old.user is not new.user)
    begin
        update tallies set sessions = sessions - 1, bytes = bytes - iif(user = '', old.size, 0)
            where old.kind = 1 and namespace = old.namespace and user in ('', old.user);
        delete from tallies where old.kind = 1 and namespace = old.namespace and user = old.user and sessions = 0;
        insert into tallies select new.namespace, '', 1, new.size where new.kind = 1
            on conflict do update set sessions = sessions + 1, bytes = bytes + excluded.bytes;
        insert into tallies select new.namespace, new.user, 1, 0 where new.kind = 1 and new.user is not null
            on conflict do update set sessions = sessions + 1;
    end;

    create trigger sessions_resized after update of size on sessions
        when old.size <> new.size and old.kind = 1 and new.kind = 1 and old.user is new.user
    begin
        update tallies set bytes = bytes + new.size - old.size where namespace = new.namespace and user = '';
    end;

    alter table expiries add column reason text not null default 'expired';  -- or evicted

    -- The latest instant by which anything was judged, in ms: a wall clock that was set back does not go behind it.
    create table clock (latest integer not null) strict;
    insert into clock values (0);
    """,
    # 3: encryption at rest.
    """
    -- Under which seals rows may rest: ids of the key list, and `plain`. The canary opens under its key alone.
    create table seals (
        id     text not null primary key,
        canary blob not null
    ) strict, without rowid;

    insert into seals select 'plain', x''
        where exists (select 1 from sessions) or exists (select 1 from expiries);

    -- How far the rows are on their way under one seal; at most one row. Rows up to the two numbers have arrived.
    create table rekey (
        one      integer not null primary key check (one = 1),
        id       text    not null,  -- the seal that they come under
        sessions integer not null,  -- the last rowid that has arrived
        expiries integer not null,  -- the last number
        done     integer not null,
        total    integer not null,  -- as it was at the beginning
        damaged  integer not null,  -- rows that opened under none of the keys, and were left as they are

        -- The last rowid and number that there were at the beginning: what comes later is under the seal already.
        last_session integer not null,
        last_expiry  integer not null
    ) strict;

    -- The user of an expired session whose file is encrypted; `user` is null then.
    alter table expiries add column sealed blob;
    """,
    # 4: writes that leave the index of expiries alone.
    """
    -- When the sweep looks at a row, ms since the epoch: at most its expires_at. A row that lives on stays where it is in
    -- the index, for to move it would dirty a second page in each commit; the sweep puts it off when it comes to it. Older
    -- rows are looked at once: to set theirs here would end the start at the first damaged one.
    alter table sessions add column due integer not null default 0;

    drop index sessions_by_expiry;
    create index sessions_by_due on sessions (due);

    -- A trigger, for SQLite writes an index anew for each column that an upsert names, whatever its value becomes.
    create trigger sessions_due_sooner after update of expires_at on sessions when new.expires_at < new.due begin
        update sessions set due = new.expires_at where rowid = new.rowid;
    end;
    """,
)
