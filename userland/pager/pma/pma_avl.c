/* Chunks in an AVL tree: the allocator of 000_1be4d2f6ae8bebbc.txt, section 3.2.
 *
 * A chunk is a run of pages that is free or in use as a whole. All chunks are in one tree, ordered by address, so a
 * client's page is found by going down once, and so are its neighbours. Each node knows the largest free chunk
 * below it, which leads to the first one that is large enough. Two free chunks never touch: they are one.
 *
 * Like the allocators that the paper refers to, it takes a chunk out of the tree before it changes it and puts the
 * parts back in. All operations are O(log n) in the number of chunks, which grows with the number of pages in use:
 * what figure 11 of the paper is about.
 *
 * A chunk's node is the record of its first page, so nodes need no allocator of their own. */
#include "pma.h"

typedef struct chunk {
	struct chunk *left, *right; /* chunks at lower, at higher addresses */
	uint32_t pages;
	uint32_t largest_free; /* pages of the largest free chunk in this subtree, this one included */
	uint8_t height;        /* of this subtree; 1 for a leaf */
	bool used;
} chunk_t;

typedef struct {
	chunk_t *root;
	chunk_t chunks[]; /* by page; those that begin no chunk are meaningless */
} tree_t;

/* --- the tree ---------------------------------------------------------------------------------------- */

static int height(const chunk_t *tree)
{
	return tree == NULL ? 0 : tree->height;
}

static uint32_t largest_free(const chunk_t *tree)
{
	return tree == NULL ? 0 : tree->largest_free;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/** Brings a node up to date with its children. */
static void update(chunk_t *tree)
{
	int left = height(tree->left), right = height(tree->right);

	tree->height = (uint8_t)(1 + (left > right ? left : right));
	tree->largest_free = larger(tree->used ? 0 : tree->pages,
				    larger(largest_free(tree->left), largest_free(tree->right)));
}

static chunk_t *rotate_left(chunk_t *tree)
{
	chunk_t *top = tree->right;

	tree->right = top->left;
	top->left = tree;
	update(tree);
	update(top);
	return top;
}

static chunk_t *rotate_right(chunk_t *tree)
{
	chunk_t *top = tree->left;

	tree->left = top->right;
	top->right = tree;
	update(tree);
	update(top);
	return top;
}

/** The same tree after one of its children gained or lost a node: heights of siblings differ by 1 at most. */
static chunk_t *balanced(chunk_t *tree)
{
	int lean = height(tree->left) - height(tree->right);

	if (lean > 1) {
		if (height(tree->left->left) < height(tree->left->right))
			tree->left = rotate_left(tree->left);
		return rotate_right(tree);
	}
	if (lean < -1) {
		if (height(tree->right->right) < height(tree->right->left))
			tree->right = rotate_right(tree->right);
		return rotate_left(tree);
	}
	update(tree);
	return tree;
}

static chunk_t *with(chunk_t *tree, chunk_t *chunk)
{
	if (tree == NULL) {
		chunk->left = chunk->right = NULL;
		update(chunk);
		return chunk;
	}
	if (chunk < tree)
		tree->left = with(tree->left, chunk);
	else
		tree->right = with(tree->right, chunk);
	return balanced(tree);
}

static chunk_t *without_lowest(chunk_t *tree, chunk_t **lowest)
{
	if (tree->left == NULL) {
		*lowest = tree;
		return tree->right;
	}
	tree->left = without_lowest(tree->left, lowest);
	return balanced(tree);
}

static chunk_t *without(chunk_t *tree, const chunk_t *chunk)
{
	if (chunk < tree) {
		tree->left = without(tree->left, chunk);
	} else if (chunk > tree) {
		tree->right = without(tree->right, chunk);
	} else {
		if (tree->right == NULL)
			return tree->left;
		chunk_t *heir;
		chunk_t *right = without_lowest(tree->right, &heir);
		heir->left = tree->left;
		heir->right = right;
		tree = heir;
	}
	return balanced(tree);
}

/** The chunk that `page` lies in, or null. */
static chunk_t *chunk_of(const tree_t *tree, const chunk_t *page)
{
	chunk_t *chunk = tree->root;

	while (chunk != NULL) {
		if (page < chunk)
			chunk = chunk->left;
		else if (page >= chunk + chunk->pages)
			chunk = chunk->right;
		else
			return chunk;
	}
	return NULL;
}

/** The free chunk of at least `pages` pages with the lowest address, or null. */
static chunk_t *first_fit(const tree_t *tree, uint32_t pages)
{
	chunk_t *chunk = tree->root;

	if (largest_free(chunk) < pages)
		return NULL;
	for (;;) {
		if (largest_free(chunk->left) >= pages)
			chunk = chunk->left;
		else if (!chunk->used && chunk->pages >= pages)
			return chunk;
		else
			chunk = chunk->right;
	}
}

/* --- the allocator ----------------------------------------------------------------------------------- */

static void put_in(tree_t *tree, chunk_t *chunk, uint32_t pages, bool used)
{
	chunk->pages = pages;
	chunk->used = used;
	tree->root = with(tree->root, chunk);
}

static void take_out(tree_t *tree, const chunk_t *chunk)
{
	tree->root = without(tree->root, chunk);
}

/** Puts a free chunk in, together with the free chunks on both sides of it. */
static void put_in_free(tree_t *tree, chunk_t *chunk, uint32_t pages)
{
	chunk_t *before = chunk_of(tree, chunk - 1);
	chunk_t *after = chunk_of(tree, chunk + pages);

	if (after != NULL && !after->used) {
		take_out(tree, after);
		pages += after->pages;
	}
	if (before != NULL && !before->used) {
		take_out(tree, before);
		pages += before->pages;
		chunk = before;
	}
	put_in(tree, chunk, pages, false);
}

static size_t avl_record_bytes(pma_page_t first, pma_page_t end)
{
	return sizeof(tree_t) + (end - first) * sizeof(chunk_t);
}

static void avl_init(pma_t *pma)
{
	((tree_t *)pma->records)->root = NULL;
}

static uint32_t avl_add(pma_t *pma, pma_page_t first, uint32_t pages)
{
	tree_t *tree = pma->records;

	put_in_free(tree, &tree->chunks[first - pma->first], pages);
	return pages;
}

static pma_page_t avl_allocate(pma_t *pma, uint32_t *pages)
{
	tree_t *tree = pma->records;
	chunk_t *chunk = first_fit(tree, *pages);

	if (chunk == NULL)
		return PMA_NONE;
	take_out(tree, chunk);
	if (chunk->pages > *pages)
		put_in(tree, chunk + *pages, chunk->pages - *pages, false);
	put_in(tree, chunk, *pages, true);
	return pma->first + (pma_page_t)(chunk - tree->chunks);
}

static uint32_t avl_release(pma_t *pma, pma_page_t first)
{
	tree_t *tree = pma->records;
	chunk_t *chunk = chunk_of(tree, &tree->chunks[first - pma->first]);

	if (chunk == NULL || !chunk->used || chunk != &tree->chunks[first - pma->first])
		return 0;
	uint32_t pages = chunk->pages;
	take_out(tree, chunk);
	put_in_free(tree, chunk, pages);
	return pages;
}

static uint32_t avl_largest_free(const pma_t *pma)
{
	return largest_free(((const tree_t *)pma->records)->root);
}

/* --- for tests --------------------------------------------------------------------------------------- */

typedef struct {
	const char *problem;
	const chunk_t *last; /* the chunk seen before: its end must not be behind the next one's start */
	uint32_t free_pages;
} audit_t;

static void audit(audit_t *audit_state, const chunk_t *tree)
{
	if (tree == NULL)
		return;
	audit(audit_state, tree->left);
	const chunk_t *last = audit_state->last;
	int lean = height(tree->left) - height(tree->right);
	chunk_t copy = *tree;
	update(&copy);
	if (tree->pages == 0)
		audit_state->problem = "an empty chunk";
	else if (last != NULL && last + last->pages > tree)
		audit_state->problem = "chunks that overlap or are out of order";
	else if (last != NULL && last + last->pages == tree && !last->used && !tree->used)
		audit_state->problem = "two free chunks that touch";
	else if (lean > 1 || lean < -1)
		audit_state->problem = "a subtree out of balance";
	else if (copy.height != tree->height || copy.largest_free != tree->largest_free)
		audit_state->problem = "a node that is not up to date with its children";
	audit_state->free_pages += tree->used ? 0 : tree->pages;
	audit_state->last = tree;
	audit(audit_state, tree->right);
}

static const char *avl_problem(const pma_t *pma, uint32_t *free_pages)
{
	audit_t state = { 0 };

	audit(&state, ((const tree_t *)pma->records)->root);
	*free_pages = state.free_pages;
	return state.problem;
}

const pma_kind_t pma_avl = {
	.name = "avl",
	.record_bytes = avl_record_bytes,
	.init = avl_init,
	.add = avl_add,
	.allocate = avl_allocate,
	.release = avl_release,
	.largest_free = avl_largest_free,
	.problem = avl_problem,
};
