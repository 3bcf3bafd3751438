-- A fork and a restore, in one round trip. docs/design/lineage.md tells the rules that are kept
-- here; it is a function because each step has to look at what the one before it waited for, and
-- asked for one by one from outside that is a dozen round trips with a lock held.
--
-- `point_line` is the line to look for the checkpoint in, the session's own if null; it must be
-- one of the session's, unless `point_until` says that its caller found the checkpoint there and
-- until when what was written to it is seen. `target` is the new session of a fork, null for a
-- restore. `trouble` says what kept it from being done: 'thread', 'epoch', 'line', 'point',
-- 'missing', or 'taken', after which the transaction has to be rolled back.
create function clew.branch(
    source text, target text, whole text, point_line bigint, point_id uuid, point_until bigint,
    held_epoch bigint, by_whom text, what_for text,
    out trouble text, out thread_id text, out owner_id bigint, out lineage_id bigint,
    out epoch bigint
) language plpgsql set enable_seqscan to off as $$
#variable_conflict use_column
declare
    forever constant bigint := 9223372036854775807;
    stand clew.head;
    line clew.lineage;
    was bigint;
    point clew.checkpoint;
    seen_until bigint := coalesce(point_until, forever);
    cut_at bigint;
    upto bigint;
    first_seq bigint := 0;
    sibling boolean := false;
    made bigint;
    spaces text[];
    seqs bigint[];
begin
    if target is null then
        select h.* into stand from clew.head h where h.thread_id = source for update;
    else
        select h.* into stand from clew.head h where h.thread_id = source;
    end if;
    -- What is forked from is not pruned meanwhile; and whatever was pruned, purged or moved while
    -- we waited for that is not there to be forked any more.
    loop
        if stand.thread_id is null then
            trouble := 'thread';
            return;
        elsif stand.epoch <> held_epoch then
            trouble := 'epoch';
            return;
        end if;
        select l.* into line from clew.lineage l
            where l.lineage_id = coalesce(point_line, stand.lineage_id)
            for key share;
        if point_line is not null and point_until is null
            and line.thread_id is distinct from source
        then
            trouble := 'line';
            return;
        end if;
        was := stand.lineage_id;
        select h.* into stand from clew.head h where h.thread_id = source;
        exit when line.lineage_id = coalesce(point_line, stand.lineage_id);
        if point_line is not null then
            trouble := 'point';
            return;
        elsif line.lineage_id is null and stand.lineage_id = was then
            trouble := 'missing';
            return;
        end if;
    end loop;

    if point_id is null then
        select c.* into point from clew.checkpoint c
            where c.lineage_id = line.lineage_id and c.ns = ''
            order by c.lineage_id desc, c.ns desc, c.seq desc limit 1;
    else
        select c.* into point from clew.checkpoint c
            where c.lineage_id = line.lineage_id and c.checkpoint_id = point_id and c.ns = '';
    end if;
    if point.seq is null then
        trouble := 'point';
        return;
    end if;

    -- The entry of the first run that went on from there; a leaf has no cut.
    select c.entry into cut_at from clew.checkpoint c
        where c.lineage_id = line.lineage_id and c.ns = '' and c.seq > point.seq
            and c.seq <= seen_until and c.parent_id = point.checkpoint_id
        order by c.lineage_id, c.ns, c.seq limit 1;
    cut_at := coalesce(cut_at, nullif(seen_until, forever));
    upto := coalesce(cut_at, forever);

    -- A fork of an untouched first row is a sibling of its line, not a child, so that a hundred
    -- restores in a row do not build a chain. It is touched if the fork would copy anything that
    -- is this lineage's own and not its parent's: a subgraph that went on since, a write, or
    -- values put again. Writes that came with the copy are older than it.
    if whole = 'path' and line.parent_id is not null and line.fork_id = point.checkpoint_id then
        sibling := not (
            exists (
                select from clew.checkpoint c
                where c.lineage_id = line.lineage_id and c.ns <> ''
                    and c.root_id = point.checkpoint_id and c.seq > point.seq and c.seq <= upto
            ) or exists (
                select from clew.checkpoint c join clew.write w using (lineage_id, checkpoint_id, ns)
                where c.lineage_id = line.lineage_id and c.seq <= point.seq
                    and w.seq > point.seq and w.seq <= upto
            ) or exists (
                select from clew.checkpoint c
                cross join lateral generate_series(1, cardinality(c.ranges), 3) as k
                where c.lineage_id = line.lineage_id and c.seq <= point.seq and c.ranges[k] = 0
            )
        );
    end if;

    insert into clew.lineage (
        owner_id, thread_id, kind, scope, parent_id, source_id, fork_id, fork_parent, fork_seq,
        moment, cut
    ) values (
        stand.owner_id, coalesce(target, source),
        case when target is null then 'restore' else 'fork' end, whole,
        case when sibling then line.parent_id else line.lineage_id end,
        stand.lineage_id, point.checkpoint_id,
        case when sibling then line.fork_parent else point.parent_id end,
        case when sibling then line.fork_seq else point.seq end,
        case when sibling then line.moment
            else coalesce(pg_sequence_last_value('clew.moment'), 0) end,
        case when sibling then line.cut else cut_at end
    ) returning lineage_id into made;

    -- When the first root checkpoint of a lineage that began as a copy landed.
    if line.parent_id is not null then
        select c.seq into first_seq from clew.checkpoint c
            where c.lineage_id = line.lineage_id and c.ns = ''
            order by c.lineage_id, c.ns, c.seq limit 1;
        first_seq := coalesce(first_seq, 0);
    end if;

    -- The subgraphs in progress under a root checkpoint, and those that keep one state for all
    -- their calls, each as it was then. The latter are few and found by skipping from one to the
    -- next. A call belongs to the root checkpoint that it was made from, whenever either of them
    -- landed: LangGraph saves in the background. A row whose root is of another lineage is a
    -- copy, and older than this one's first root; or that root is still on its way.
    with recursive stable as (
        (select c.ns from clew.checkpoint c
        where c.lineage_id = line.lineage_id and c.ns <> '' and strpos(c.ns, ':') = 0
        order by c.lineage_id, c.ns limit 1)
        union all
        select (
            select c.ns from clew.checkpoint c
            where c.lineage_id = line.lineage_id and c.ns > s.ns
                and c.ns <> '' and strpos(c.ns, ':') = 0
            order by c.lineage_id, c.ns limit 1
        )
        from stable s where s.ns is not null
    ), running as (
        select distinct on (c.ns) c.ns, c.seq from clew.checkpoint c
        where c.lineage_id = line.lineage_id and c.ns <> '' and c.root_id = point.checkpoint_id
            and c.seq <= upto and strpos(c.ns, ':') > 0
        order by c.ns, c.seq desc
    ), kept as (
        select s.ns, t.seq from stable s
        cross join lateral (
            select c.seq from clew.checkpoint c
            left join clew.checkpoint r
                on r.lineage_id = c.lineage_id and r.checkpoint_id = c.root_id and r.ns = ''
            where c.lineage_id = line.lineage_id and c.ns = s.ns and strpos(c.ns, ':') = 0
                and case
                    when c.root_id is null then c.seq < point.seq
                    when c.root_id = point.checkpoint_id then c.seq <= upto
                    when r.seq is null then c.seq < first_seq
                    else r.seq < point.seq
                end
            order by c.lineage_id desc, c.ns desc, c.seq desc limit 1
        ) t
        where s.ns is not null
    ), tips as (
        select ns, seq from running union all select ns, seq from kept
        union all select '', point.seq
    )
    select array_agg(ns), array_agg(seq) into spaces, seqs from tips;

    -- The fork point's own rows, under the new lineage. Values stay where they are: a range that
    -- meant its row's own lineage says so by number now. The root checkpoint comes last: whatever
    -- is later than it was not copied.
    insert into clew.checkpoint (
        lineage_id, owner_id, entry, created_at, checkpoint_id, parent_id, root_id, run_id, step,
        source, ns, ranges, seeds, state, metadata
    )
    select
        made, c.owner_id, c.entry, c.created_at, c.checkpoint_id, c.parent_id, c.root_id, c.run_id,
        c.step, c.source, c.ns,
        case when c.ranges is null then null else array(
            select case when ord % 3 = 1 and r = 0 then line.lineage_id else r end
            from unnest(c.ranges) with ordinality as u (r, ord) order by ord
        ) end,
        c.seeds, c.state, c.metadata
    from unnest(spaces, seqs) as t (ns, seq)
    cross join lateral (
        select * from clew.checkpoint
        where lineage_id = line.lineage_id and ns = t.ns and seq = t.seq
        offset 0
    ) c
    order by c.ns = '', c.seq;

    insert into clew.write (
        lineage_id, owner_id, seq, slot, checkpoint_id, task_id, ns, channel, path, body
    )
    select
        made, w.owner_id, w.seq, w.slot, w.checkpoint_id, w.task_id, w.ns, w.channel, w.path,
        w.body
    from unnest(spaces, seqs) as t (ns, seq)
    cross join lateral (
        select lineage_id, checkpoint_id, ns from clew.checkpoint
        where lineage_id = line.lineage_id and ns = t.ns and seq = t.seq
        offset 0
    ) c
    cross join lateral (
        select * from clew.write
        where lineage_id = c.lineage_id and checkpoint_id = c.checkpoint_id and ns = c.ns
            and seq <= upto
        offset 0
    ) w;

    if target is null then
        update clew.head h set epoch = h.epoch + 1, lineage_id = made where h.thread_id = source
        returning h.thread_id, h.owner_id, h.lineage_id, h.epoch
        into thread_id, owner_id, lineage_id, epoch;
    else
        insert into clew.head (thread_id, owner_id, lineage_id)
        values (target, stand.owner_id, made)
        on conflict do nothing
        returning thread_id, owner_id, lineage_id, epoch
        into thread_id, owner_id, lineage_id, epoch;
        if thread_id is null then
            trouble := 'taken';
            return;
        end if;
    end if;
    insert into clew.move (owner_id, thread_id, kind, from_id, to_id, checkpoint_id, actor, reason)
    values (
        stand.owner_id, coalesce(target, source),
        case when target is null then 'restore' else 'fork' end,
        stand.lineage_id, made, point.checkpoint_id, by_whom, what_for
    );
end
$$;
