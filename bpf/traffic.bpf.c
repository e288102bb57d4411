/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Bytes by direction.
 * Hook: cgroup_skb at the root of the v2 hierarchy, by a link that dies with its holder. It sees each packet with the
 * cgroup of its socket, whatever call moved it (write, splice, io_uring). Misses: packets of no socket, and raw ones. */

static __always_inline struct tally *tally_of_packet(struct __sk_buff *skb)
{
    u64 cgroup = bpf_skb_cgroup_id(skb);
    u32 *slot = slots.lookup(&cgroup), at = (slot ? *slot : SLOT_REST) * CPUS + bpf_get_smp_processor_id();
    return tallies.lookup(&at);
}

int count_received(struct __sk_buff *skb)
{
    struct tally *n = tally_of_packet(skb);
    if (n)
        n->received += skb->len;
    return 1; /* always let through */
}

int count_sent(struct __sk_buff *skb)
{
    struct tally *n = tally_of_packet(skb);
    if (n)
        n->sent += skb->len;
    return 1;
}
