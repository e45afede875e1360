/*
 * objects.sql
 *		Shows each object of the extension with all of its properties, in order to
 *		compare two installations.  Grants are sorted, since the server keeps them in
 *		the order in which they were made.
 */
SET search_path = '';
SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0),
	   COALESCE(pg_catalog.obj_description(d.objid, d.classid::pg_catalog.regclass::text), ''),
	   COALESCE((SELECT pg_catalog.pg_get_functiondef(p.oid) FROM pg_catalog.pg_proc AS p
				 WHERE p.oid = d.objid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.prokind <> 'a'), ''),
	   COALESCE((SELECT pg_catalog.row_to_json(a)::text FROM pg_catalog.pg_aggregate AS a
				 WHERE a.aggfnoid = d.objid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass), ''),
	   COALESCE((SELECT pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class AS c
				 WHERE c.oid = d.objid AND c.relkind = 'v' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass), ''),
	   (SELECT pg_catalog.string_agg(acl::text, ',' ORDER BY acl::text) FROM (
			SELECT pg_catalog.unnest(c.relacl) FROM pg_catalog.pg_class AS c
			WHERE c.oid = d.objid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
			UNION ALL SELECT pg_catalog.unnest(p.proacl) FROM pg_catalog.pg_proc AS p
			WHERE p.oid = d.objid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
			UNION ALL SELECT pg_catalog.unnest(t.typacl) FROM pg_catalog.pg_type AS t
			WHERE t.oid = d.objid AND d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass) AS a (acl)),
	   (SELECT pg_catalog.string_agg(acl::text, ',' ORDER BY acl::text)
		FROM pg_catalog.pg_init_privs AS i, pg_catalog.unnest(i.initprivs) AS acl
		WHERE i.objoid = d.objid AND i.classoid = d.classid),
	   (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
					a.attstorage, a.attcollation::pg_catalog.regcollation, pg_catalog.pg_get_expr(f.adbin, f.adrelid),
					pg_catalog.col_description(a.attrelid, a.attnum)), E'\n' ORDER BY a.attnum)
		FROM pg_catalog.pg_attribute AS a LEFT JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
		WHERE a.attrelid = d.objid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped),
	   (SELECT pg_catalog.string_agg(pg_catalog.pg_get_indexdef(i.indexrelid), E'\n' ORDER BY i.indexrelid::pg_catalog.regclass::text)
		FROM pg_catalog.pg_index AS i WHERE i.indrelid = d.objid),
	   (SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(c.oid), E'\n' ORDER BY c.conname)
		FROM pg_catalog.pg_constraint AS c WHERE c.conrelid = d.objid AND c.contype <> 'n'),
	   (SELECT pg_catalog.string_agg(pg_catalog.pg_get_triggerdef(t.oid), E'\n' ORDER BY t.tgname)
		FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = d.objid AND NOT t.tgisinternal),
	   (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', p.polname, p.polcmd, p.polroles::text,
					pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)), E'\n' ORDER BY p.polname)
		FROM pg_catalog.pg_policy AS p WHERE p.polrelid = d.objid),
	   (SELECT pg_catalog.concat_ws(' ', c.reloptions::text, c.relrowsecurity) FROM pg_catalog.pg_class AS c WHERE c.oid = d.objid),
	   (SELECT pg_catalog.array_position(x.extconfig, d.objid) IS NOT NULL FROM pg_catalog.pg_extension AS x WHERE x.oid = d.refobjid)
FROM pg_catalog.pg_depend AS d
WHERE d.deptype = 'e'
  AND d.refobjid = (SELECT oid FROM pg_catalog.pg_extension WHERE extname IN ('postalytics_status', 'postalytics_cluster'))
ORDER BY 1;
