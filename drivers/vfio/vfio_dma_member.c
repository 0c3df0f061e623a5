// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which containers an address space has, and the ledger that they share
 *
 * Each container that has an owner is in a table by the owner's address space.  The only
 * container of an address space has no ledger.  When another one gets the same owner, both
 * get the same one; it goes with the last container that has it.
 *
 * Nothing here enters anything in a ledger, and no container is looked into.
 */

#include <linux/hash.h>
#include <linux/mutex.h>
#include <linux/rculist.h>

#include "vfio_dma_ledger.h"
#include "vfio_dma_member.h"
#include "vfio_dma_owner.h"

#define MEMBER_BITS	6

/* Containers that have an owner, by its address space.  Lock: members_lock */
static struct hlist_head members[BIT(MEMBER_BITS)];
static DEFINE_MUTEX(members_lock);

static struct hlist_head *members_of(const struct mm_struct *mm)
{
	return &members[hash_ptr(mm, MEMBER_BITS)];
}

/* The first member of an address space, or the one after @last */
static struct vfio_dma_member *next_member(const struct mm_struct *mm,
					   const struct vfio_dma_member *last)
{
	struct vfio_dma_member *other;
	struct hlist_node *node;

	lockdep_assert_held(&members_lock);

	node = last ? last->next.next : members_of(mm)->first;
	for (; node; node = node->next) {
		other = hlist_entry(node, struct vfio_dma_member, next);
		if (other->mm == mm)
			return other;
	}
	return NULL;
}

/* The ledger that members of an address space have */
static struct vfio_dma_ledger *find_ledger(const struct mm_struct *mm)
{
	struct vfio_dma_member *other;

	lockdep_assert_held(&members_lock);

	for (other = next_member(mm, NULL); other; other = next_member(mm, other))
		if (other->ledger)
			return other->ledger;
	return NULL;
}

/**
 * vfio_dma_member_add() - give all containers of an address space a ledger
 * @member: a container to add to them, or %NULL
 * @mm: the address space
 * @others: set to whether there are any
 *
 * Context: Process context, may sleep.  Takes and releases the lock of the table.
 * Return: the ledger, with a reference for the caller or @member; %NULL if there are no
 * others, or no memory.
 */
struct vfio_dma_ledger *vfio_dma_member_add(struct vfio_dma_member *member,
					    const struct mm_struct *mm, bool *others)
{
	struct vfio_dma_ledger *ledger, *spare = NULL;
	struct vfio_dma_member *other;

	mutex_lock(&members_lock);
	if (next_member(mm, NULL) && !find_ledger(mm)) {
		/* Memory can take long, and the table is everybody's. */
		mutex_unlock(&members_lock);
		spare = vfio_dma_ledger_alloc();
		mutex_lock(&members_lock);
	}
	*others = next_member(mm, NULL);
	ledger = *others ? find_ledger(mm) ?: spare : NULL;
	for (other = next_member(mm, NULL); other; other = next_member(mm, other)) {
		if (!ledger || other->ledger)
			continue;
		refcount_inc(&ledger->refs);
		other->ledger = ledger;
	}
	if (ledger && ledger != spare)
		refcount_inc(&ledger->refs);
	if (member) {
		member->mm = mm;
		member->ledger = ledger;
		member->entered = ledger;
		hlist_add_head(&member->next, members_of(mm));
	}
	mutex_unlock(&members_lock);
	if (spare != ledger)
		vfio_dma_ledger_put(spare);
	return ledger;
}

/* Is there a container in the ledger, what it holds yet to be entered? */
static bool others_missing(const struct vfio_dma_ledger *ledger,
			   const struct mm_struct *mm)
{
	struct vfio_dma_member *other;

	guard(mutex)(&members_lock);
	for (other = next_member(mm, NULL); other; other = next_member(mm, other))
		if (other->ledger == ledger && !other->entered)
			return true;
	return false;
}

/**
 * vfio_dma_member_join() - a container has got an owner
 * @member: the container
 * @owner: its owner, who holds nothing
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: 0; 1 if what other containers hold has yet to be entered; -ENOMEM if there are
 * others, and no memory for a ledger.
 */
int vfio_dma_member_join(struct vfio_dma_member *member, struct vfio_dma_owner *owner)
{
	const struct mm_struct *mm = owner->mm;
	struct vfio_dma_ledger *ledger;
	bool others;

	ledger = vfio_dma_member_add(member, mm, &others);
	if (!ledger)
		return others ? -ENOMEM : 0;
	/* Nothing is charged, so there is nothing to count. */
	WRITE_ONCE(owner->ledger, ledger);
	return others_missing(ledger, mm);
}

/**
 * vfio_dma_member_remove() - a container is one of the address space's no longer
 * @member: the container
 *
 * Context: Process context, may sleep.  Takes and releases the lock of the table.
 * Return: its ledger, with its reference, or %NULL.
 */
struct vfio_dma_ledger *vfio_dma_member_remove(struct vfio_dma_member *member)
{
	struct vfio_dma_ledger *ledger;

	guard(mutex)(&members_lock);
	hlist_del_init(&member->next);
	ledger = member->ledger;
	member->ledger = NULL;
	member->entered = false;
	return ledger;
}

/**
 * vfio_dma_member_quit() - a container is about to lose its owner
 * @member: the container
 * @owner: the owner, who holds nothing; there may be none
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex, or nobody else
 * knows the container.
 */
void vfio_dma_member_quit(struct vfio_dma_member *member, struct vfio_dma_owner *owner)
{
	struct vfio_dma_ledger *ledger;

	/* Neighbours in the table may change, but not whether it is there. */
	if (hlist_unhashed_lockless(&member->next))
		return;
	ledger = vfio_dma_member_remove(member);
	owner->ledger = NULL;
	vfio_dma_ledger_put(ledger);
}

/**
 * vfio_dma_member_move() - give a member another place in memory
 * @from: a member
 * @to: where it is from now on
 *
 * A ledger that came meanwhile has nothing of the container: whoever has made that waits
 * for its mutex.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_member_move(struct vfio_dma_member *from, struct vfio_dma_member *to)
{
	guard(mutex)(&members_lock);
	hlist_del(&from->next);
	*to = *from;
	hlist_add_head(&to->next, members_of(to->mm));
}

/**
 * vfio_dma_member_lacks() - has what a container holds yet to be entered in a ledger?
 * @member: the container
 * @ledger: a ledger
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: true if the ledger is that of its address space, and it is not entered.
 */
bool vfio_dma_member_lacks(const struct vfio_dma_member *member,
			   const struct vfio_dma_ledger *ledger)
{
	guard(mutex)(&members_lock);
	return member->ledger == ledger && !member->entered;
}

/**
 * vfio_dma_member_set_entered() - what a container holds has been entered in its ledger
 * @member: the container
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 */
void vfio_dma_member_set_entered(struct vfio_dma_member *member)
{
	guard(mutex)(&members_lock);
	member->entered = true;
}

/**
 * vfio_dma_member_get_lacking() - find a container for which vfio_dma_member_lacks()
 * @ledger: the ledger
 * @mm: its address space
 * @get: takes a reference to a container, unless it is about to be freed
 *
 * Context: Process context, may sleep.  Takes and releases the lock of the table, and calls
 * @get with it.
 * Return: the container, with a reference, or %NULL.
 */
struct vfio_dma_container *
vfio_dma_member_get_lacking(const struct vfio_dma_ledger *ledger,
			    const struct mm_struct *mm,
			    bool (*get)(struct vfio_dma_container *container))
{
	struct vfio_dma_member *other;

	guard(mutex)(&members_lock);
	for (other = next_member(mm, NULL); other; other = next_member(mm, other))
		if (other->ledger == ledger && !other->entered && get(other->container))
			return other->container;
	return NULL;
}

/**
 * vfio_dma_member_is_alone() - is a container charged on its own beside others?
 * @member: the container
 *
 * There was no memory for a ledger, or the call was killed that was to enter it.
 *
 * Context: Process context, may sleep.  Caller holds the container's mutex.
 * Return: true if another container has the same owner, and nothing of this one is in a
 * ledger.
 */
bool vfio_dma_member_is_alone(const struct vfio_dma_member *member)
{
	const struct vfio_dma_member *other;

	if (hlist_unhashed_lockless(&member->next))
		return false;
	guard(mutex)(&members_lock);
	for (other = next_member(member->mm, NULL); other; other = next_member(member->mm, other))
		if (other != member)
			return !member->entered;
	return false;
}
