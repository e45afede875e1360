/*
 * order_support.c
 *		Planner support for the operators of the lifecycle's partial order: replaces
 *		a call with a constant by an expression that can use indexes and statistics.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lifecycle/lifecycle.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/supportnodes.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(postalytics_order_support);

/*
 * Store in values, in enum order, the statuses for which the call with the
 * constant is true, and return their number.
 */
static int
find_values(FuncExpr *call, Const *constant, bool constant_first, Datum *values)
{
	int			nvalues = 0;

	/*
	 * Load the cache that status_oid uses, by means of the constant, which
	 * has the enum's type.
	 */
	(void) status_from_oid(DatumGetObjectId(constant->constvalue));
	for (int i = 0; i < N_STATUSES; i++)
	{
		Datum		value = ObjectIdGetDatum(status_oid(i));
		Datum		holds = constant_first ?
		OidFunctionCall2(call->funcid, constant->constvalue, value) :
		OidFunctionCall2(call->funcid, value, constant->constvalue);

		if (DatumGetBool(holds))
			values[nvalues++] = value;
	}
	return nvalues;
}

/* Make "expression <= value" or "expression >= value". */
static Node *
make_comparison(Node *expression, Const *constant, Datum value, int16 strategy)
{
	TypeCacheEntry *type = lookup_type_cache(constant->consttype, TYPECACHE_BTREE_OPFAMILY);
	Oid			operator = get_opfamily_member(type->btree_opf, type->btree_opintype,
											   type->btree_opintype, strategy);
	Const	   *bound = copyObjectImpl(constant);	/* 19's copyObject needs
													 * C23 */
	Expr	   *comparison;

	bound->constvalue = value;
	comparison = make_opclause(operator, BOOLOID, false, (Expr *) expression,
							   (Expr *) bound, InvalidOid, InvalidOid);
	set_opfuncid((OpExpr *) comparison);
	return (Node *) comparison;
}

/* Make "expression = ANY (values)". */
static Node *
make_membership(Node *expression, Const *constant, Datum *values, int nvalues)
{
	TypeCacheEntry *type = lookup_type_cache(constant->consttype, TYPECACHE_EQ_OPR);
	ScalarArrayOpExpr *any = makeNode(ScalarArrayOpExpr);
	ArrayType  *array = construct_array(values, nvalues, constant->consttype,
										sizeof(Oid), true, TYPALIGN_INT);

	any->opno = type->eq_opr;
	any->opfuncid = get_opcode(type->eq_opr);
	any->useOr = true;
	any->inputcollid = InvalidOid;
	any->args = list_make2(expression,
						   makeConst(get_array_type(constant->consttype), -1, InvalidOid, -1,
									 PointerGetDatum(array), false, false));
	any->location = -1;
	return (Node *) any;
}

/*
 * Express the call with the server's operators for enums.  If the call is true
 * for the first or the last values of the enum, the result is a comparison.
 * Otherwise, it is a test for membership.  Returns NULL, which leaves the call
 * unchanged, if the call is true for no value: for a NULL argument,
 * "= ANY ('{}')" is false, but a strict function is NULL.
 */
static Node *
simplify_order(FuncExpr *call, Node *expression, Const *constant, bool constant_first)
{
	Datum		values[N_STATUSES];
	int			nvalues = find_values(call, constant, constant_first, values);

	if (nvalues == 0)
		return NULL;
	if (DatumGetObjectId(values[nvalues - 1]) == status_oid(nvalues - 1))
		return make_comparison(expression, constant, values[nvalues - 1],
							   BTLessEqualStrategyNumber);
	if (DatumGetObjectId(values[0]) == status_oid(N_STATUSES - nvalues))
		return make_comparison(expression, constant, values[0],
							   BTGreaterEqualStrategyNumber);
	return make_membership(expression, constant, values, nvalues);
}

/*
 * order_support(internal) returns internal
 *
 * Replaces a call with one constant argument as described in simplify_order.
 * Strict.
 */
Datum
postalytics_order_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	Node	   *result = NULL;

	if (IsA(request, SupportRequestSimplify))
	{
		FuncExpr   *call = ((SupportRequestSimplify *) request)->fcall;
		Node	   *left = linitial(call->args);
		Node	   *right = lsecond(call->args);

		/*
		 * The planner itself evaluates calls with a NULL or with two
		 * constants.
		 */
		if (IsA(right, Const) && !((Const *) right)->constisnull)
			result = simplify_order(call, left, (Const *) right, false);
		else if (IsA(left, Const) && !((Const *) left)->constisnull)
			result = simplify_order(call, right, (Const *) left, true);
	}
	PG_RETURN_POINTER(result);
}
