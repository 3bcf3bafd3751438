-- name: create_template
with made as (
    insert into clew.template (template_id, owner_id, name, description, shared, body)
    values (%(template_id)s, %(owner_id)s, %(name)s, %(description)s, %(shared)s, %(body)s)
    returning *),
kept as (
    insert into clew.template_version (template_id, version, owner_id, body)
    select template_id, version, owner_id, body from made)
select * from made

-- name: update_template
-- A new body is a new version; a new name is not.
with changed as (
    update clew.template t set
        name = coalesce(%(name)s, t.name),
        description = coalesce(%(description)s, t.description),
        shared = coalesce(%(shared)s, t.shared),
        body = coalesce(%(body)s, t.body),
        version = case when %(body)s::jsonb is null then t.version else t.version + 1 end,
        updated_at = now()
    where t.template_id = %(template_id)s
    returning *),
kept as (
    insert into clew.template_version (template_id, version, owner_id, body)
    select template_id, version, owner_id, body from changed where %(body)s::jsonb is not null)
select * from changed

-- name: get_template
select t.template_id, t.owner_id, t.name, t.description, t.shared, v.body, v.version,
    t.created_at, t.updated_at
from clew.template t join clew.template_version v using (template_id)
where template_id = %(template_id)s and v.version = coalesce(%(version)s::integer, t.version)

-- name: list_templates
select * from clew.template order by updated_at desc, template_id limit %(limit)s

-- name: delete_template
delete from clew.template where template_id = %(template_id)s
