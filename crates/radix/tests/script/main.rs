//! What the cache does, as scripts and what they print. Law: each script shows one property, which is its name.

mod language;

use language::{check, check_cache};
use sglang_radix::PrefixCache;

#[test]
fn nothing_is_known_at_first() {
    check(
        4,
        "
        acquire a 1-20
        match 1-20
        extend a 20
        pages a
        show
        release a
        show",
        "
        a: matched 0, pages []
        match 0
        a: pages [0, 1]
        namespace 0 leases 1
        free 2 cached 0 leased 2
        free 4 cached 0 leased 0",
    );
}

#[test]
fn what_was_committed_is_found_and_a_match_inside_a_page_is_copied() {
    check(
        4,
        "
        cache 1-20
        match 1-18 99
        acquire b 1-18 99
        show",
        "
        match 18
        b: matched 18, pages [0, 2], copy 2 rows 1->2
        namespace 0 leases 1
          0: 1-16 [0] leases 1
            16: 17-20 [1]
        free 1 cached 2 leased 1",
    );
}

#[test]
fn a_match_on_a_page_boundary_takes_no_page() {
    check(
        4,
        "
        acquire a 1-40
        write a 1-40
        acquire b 1-32 99
        show",
        "
        a: matched 0, pages []
        b: matched 32, pages [0, 1]
        namespace 0 leases 2
          0: 1-32 [0 1] leases 2
            32: 33-40 [2] leases 1
        free 1 cached 3 leased 0",
    );
}

#[test]
fn a_run_grows_in_place_while_one_request_decodes() {
    check(
        4,
        "
        acquire a 1-20
        write a 1-20
        commit a 1-21
        commit a 1-22
        write a 1-33
        show",
        "
        a: matched 0, pages []
        namespace 0 leases 1
          0: 1-33 [0 1 2] leases 1
        free 1 cached 3 leased 0",
    );
}

/// Under a window of 20, a sequence of 80 tokens holds its last two pages. The others are the first to be evicted; then only
/// a prefix whose last 20 tokens are there is known, until someone computes the others again.
#[test]
fn what_a_window_has_passed_is_lost_and_filled_again() {
    check_cache(
        PrefixCache::with_window(8, 20),
        "
        acquire a 1-80
        write a 1-80
        pass a 80
        show
        evict 2
        show
        match 1-40 99
        match 1-60 99
        acquire b 1-34 99
        write b 1-34 99
        show
        pages a",
        "
        a: matched 0, pages []
        namespace 0
          0: 1-48 [0 1 2]
            48: 49-80 [3 4] leases 1
        free 3 cached 5 leased 0
        evicted 2
        namespace 0
          0: 1-48 [- - 2]
            48: 49-80 [3 4] leases 1
        free 5 cached 3 leased 0
        match 0
        match 60
        b: matched 0, pages []
        namespace 0 leases 1
          0: 1-34 [1 0] leases 1
            34: 35-48 [2]
              48: 49-80 [3 4] leases 1
            34: 99 [5] leases 1
        free 2 cached 6 leased 0
        a: pages [-, -, -, 3, 4]",
    );
}

/// Each prompt is one token longer than the one before: the page that they end in is copied each time, and each time the copy
/// takes the place of what it was copied from.
#[test]
fn a_place_of_a_path_has_one_page() {
    check(
        3,
        "
        cache 1-17
        cache 1-18
        cache 1-20
        acquire a 1-22
        write a 1-23
        show
        extend a 48
        write a 1-48
        show",
        "
        a: matched 20, pages [0, 2], copy 4 rows 1->2
        namespace 0 leases 1
          0: 1-16 [0] leases 1
            16: 17-23 [2] leases 1
        free 1 cached 2 leased 0
        namespace 0 leases 1
          0: 1-16 [0] leases 1
            16: 17-48 [2 1] leases 1
        free 0 cached 3 leased 0",
    );
}

#[test]
fn a_leaf_loses_the_tokens_whose_page_went_with_the_run_below() {
    check(
        4,
        "
        cache 1-40
        acquire a 1-20 50
        write a 1-20 50
        release a
        show
        evict 1
        show
        evict 2
        show",
        "
        a: matched 20, pages [0, 3], copy 4 rows 1->3
        namespace 0
          0: 1-16 [0]
            16: 17-20 []
              20: 21-40 [1 2]
              20: 50 [3]
        free 0 cached 4 leased 0
        evicted 1
        namespace 0
          0: 1-16 [0]
            16: 17-20 []
              20: 21-32 [1]
              20: 50 [3]
        free 1 cached 3 leased 0
        evicted 2
        namespace 0
          0: 1-16 [0]
        free 3 cached 1 leased 0",
    );
}

#[test]
fn only_the_matched_path_is_pinned() {
    check(
        4,
        "
        cache 1-48
        acquire b 1-16
        show
        evict 9
        show",
        "
        b: matched 16, pages [0]
        namespace 0 leases 1
          0: 1-16 [0] leases 1
            16: 17-48 [1 2]
        free 1 cached 3 leased 0
        evicted 2
        namespace 0 leases 1
          0: 1-16 [0] leases 1
        free 3 cached 1 leased 0",
    );
}

#[test]
fn the_creator_goes_on_in_its_committed_page_and_others_copy() {
    check(
        8,
        "
        acquire a 1-20
        write a 1-20
        acquire b 1-20
        commit a 1-22
        commit b 1-20 50
        show
        pages a
        pages b",
        "
        a: matched 0, pages []
        b: matched 20, pages [0, 2], copy 4 rows 1->2
        namespace 0 leases 2
          0: 1-16 [0] leases 2
            16: 17-20 [] leases 2
              20: 21 22 [1] leases 1
              20: 50 [2] leases 1
        free 5 cached 3 leased 0
        a: pages [0, 1]
        b: pages [0, 2]",
    );
}

#[test]
fn full_pages_computed_twice_are_stored_once() {
    check(
        8,
        "
        acquire a 1-40
        acquire b 1-40
        extend a 40
        extend b 40
        pages b
        commit a 1-40
        commit b 1-40
        pages b
        show",
        "
        a: matched 0, pages []
        b: matched 0, pages []
        b: pages [3, 4, 5]
        b: pages [0, 1, 5]
        namespace 0 leases 2
          0: 1-32 [0 1] leases 2
            32: 33-40 [2] leases 1
        free 4 cached 3 leased 1",
    );
}

#[test]
fn the_last_page_stays_private_where_the_tree_has_anothers() {
    check(
        8,
        "
        acquire a 1-20
        acquire b 1-20
        extend a 20
        extend b 20
        commit a 1-20
        commit b 1-20
        pages b
        commit b 1-20 70-75
        show
        release a
        release b
        acquire c 1-20 70-73",
        "
        a: matched 0, pages []
        b: matched 0, pages []
        b: pages [0, 3]
        namespace 0 leases 2
          0: 1-16 [0] leases 2
            16: 17-20 [1] leases 2
              20: 70-75 [3] leases 1
        free 5 cached 3 leased 0
        c: matched 24, pages [0, 1], copy 8 rows 3->1",
    );
}

#[test]
fn a_page_goes_down_to_the_run_that_its_writer_goes_on_in() {
    check(
        8,
        "
        acquire a 1-20
        write a 1-20
        acquire b 1-20
        commit b 1-22
        commit a 1-22
        show
        commit a 1-22 70-75
        show
        release a
        release b
        acquire c 1-22 70-72
        release c
        clear
        show",
        "
        a: matched 0, pages []
        b: matched 20, pages [0, 2], copy 4 rows 1->2
        namespace 0 leases 2
          0: 1-16 [0] leases 2
            16: 17-20 [1] leases 2
              20: 21 22 [2] leases 1
        free 5 cached 3 leased 0
        namespace 0 leases 2
          0: 1-16 [0] leases 2
            16: 17-20 [] leases 2
              20: 21 22 [2] leases 2
                22: 70-75 [1] leases 1
        free 5 cached 3 leased 0
        c: matched 25, pages [0, 2], copy 9 rows 1->2
        evicted 2
        free 8 cached 0 leased 0",
    );
}

#[test]
fn a_whole_page_replaces_the_creators_own_page_in_the_tree() {
    check(
        8,
        "
        acquire a 1-20
        extend a 40
        commit a 1-20
        acquire b 1-20
        write b 1-34
        commit a 1-36
        pages a
        show",
        "
        a: matched 0, pages []
        b: matched 20, pages [0, 3], copy 4 rows 1->3
        a: pages [0, 3, 2]
        namespace 0 leases 2
          0: 1-16 [0] leases 2
            16: 17-20 [] leases 2
              20: 21-34 [3 4] leases 2
                34: 35 36 [2] leases 1
        free 4 cached 4 leased 0",
    );
}

#[test]
fn a_split_inside_a_page_leaves_the_page_below() {
    check(
        8,
        "
        acquire a 1-30
        write a 1-30
        acquire b 1-20 60
        write b 1-20 60
        acquire c 1-25 70
        write c 1-25 70
        acquire d 1-18 80
        write d 1-18 80
        show",
        "
        a: matched 0, pages []
        b: matched 20, pages [0, 2], copy 4 rows 1->2
        c: matched 25, pages [0, 3], copy 9 rows 1->3
        d: matched 18, pages [0, 4], copy 2 rows 1->4
        namespace 0 leases 4
          0: 1-16 [0] leases 4
            16: 17 18 [] leases 4
              18: 19 20 [] leases 3
                20: 21-25 [] leases 2
                  25: 26-30 [1] leases 1
                  25: 70 [3] leases 1
                20: 60 [2] leases 1
              18: 80 [4] leases 1
        free 3 cached 5 leased 0",
    );
}

#[test]
fn a_split_does_not_move_the_lease_that_ends_below() {
    check(
        8,
        "
        acquire a 1-30
        write a 1-30
        acquire b 1-20
        release b
        commit a 1-31
        write a 1-34
        show",
        "
        a: matched 0, pages []
        b: matched 20, pages [0, 2], copy 4 rows 1->2
        namespace 0 leases 1
          0: 1-16 [0] leases 1
            16: 17-34 [1 2] leases 1
        free 5 cached 3 leased 0",
    );
}

#[test]
fn a_commit_that_ends_inside_a_run_splits_it() {
    check(
        8,
        "
        acquire a 1-40
        acquire b 1-40
        write a 1-40
        release a
        extend b 40
        commit b 1-24
        pages b
        show
        commit b 1-24 50
        show",
        "
        a: matched 0, pages []
        b: matched 0, pages []
        b: pages [0, 4, 5]
        namespace 0 leases 1
          0: 1-16 [0] leases 1
            16: 17-40 [1 2]
        free 3 cached 3 leased 2
        namespace 0 leases 1
          0: 1-16 [0] leases 1
            16: 17-24 [] leases 1
              24: 25-40 [1 2]
              24: 50 [4] leases 1
        free 3 cached 4 leased 1",
    );
}

#[test]
fn a_match_is_cut_back_where_no_page_can_be_had() {
    check(
        2,
        "
        acquire a 1-20
        write a 1-20
        acquire b 1-18
        show",
        "
        a: matched 0, pages []
        b: matched 16, pages [0]
        namespace 0 leases 2
          0: 1-16 [0] leases 2
            16: 17-20 [1] leases 1
        free 0 cached 2 leased 0",
    );
}

#[test]
fn what_was_matched_inside_a_page_stays_where_its_page_is_evicted_for_the_copy() {
    check(
        3,
        "
        cache 1-20
        cache 50-60
        acquire c 1-18
        show",
        "
        c: matched 18, pages [0, 1]
        namespace 0 leases 1
          0: 1-16 [0] leases 1
          0: 50-60 [2]
        free 0 cached 2 leased 1",
    );
}

#[test]
fn extend_evicts_the_longest_unused_end_first() {
    check(
        4,
        "
        cache 1-32
        cache 50-81
        acquire c 90
        extend c 1
        show",
        "
        c: matched 0, pages []
        namespace 0 leases 1
          0: 1-16 [0]
          0: 50-81 [2 3]
        free 0 cached 3 leased 1",
    );
}

#[test]
fn use_moves_a_run_to_the_end_of_the_order() {
    check(
        4,
        "
        cache 1-32
        cache 50-81
        acquire a 1-32
        release a
        evict 1
        show
        evict 2
        show",
        "
        a: matched 32, pages [0, 1]
        evicted 1
        namespace 0
          0: 1-32 [0 1]
          0: 50-65 [2]
        free 1 cached 3 leased 0
        evicted 2
        namespace 0
          0: 1-16 [0]
        free 3 cached 1 leased 0",
    );
}

#[test]
fn asking_for_too_much_changes_nothing() {
    check(
        4,
        "
        acquire a 1-16
        write a 1-16
        cache 50-70
        available
        extend a 65
        show",
        "
        a: matched 0, pages []
        available 3
        a: out of KV pages: 4 wanted, 3 free or evictable; release leases or add pages
        namespace 0 leases 1
          0: 1-16 [0] leases 1
          0: 50-70 [1 2]
        free 1 cached 3 leased 0",
    );
}

#[test]
fn namespaces_share_nothing() {
    check(
        4,
        "
        acquire a 1-16 in 7
        write a 1-16
        acquire b 1-16
        acquire c 1-16 in 7
        show",
        "
        a: matched 0, pages []
        b: matched 0, pages []
        c: matched 16, pages [0]
        namespace 0 leases 1
        namespace 7 leases 2
          0: 1-16 [0] leases 2
        free 3 cached 1 leased 0",
    );
}

#[test]
fn a_namespace_is_stored_found_and_evicted_on_its_own() {
    check(
        8,
        "
        cache 1-20
        cache 1-20 in 7
        cache 1-20 30 31 in 7
        match 1-20
        match 1-20 30 31
        match 1-20 30 31 in 7
        match 1-20 in 8
        acquire a 1-20 30 31 in 7
        evict 9
        show
        match 1-20
        match 1-20 in 7",
        "
        match 20
        match 20
        match 22
        match 0
        a: matched 22, pages [2, 3], copy 6 rows 4->3
        evicted 3
        namespace 7 leases 1
          0: 1-16 [2] leases 1
        free 6 cached 1 leased 1
        match 0
        match 16",
    );
}

/// Positions of an image hold numbers above the vocabulary that spell the hash of its content.
#[test]
fn images_are_keyed_by_content() {
    check(
        16,
        "
        cache 1-5 4000000001 4000000002 4000000003 6-20
        match 1-5 4000000001 4000000002 4000000003 6-20 7
        match 1-5 4000000001 4000000009 4000000003 6-20",
        "
        match 23
        match 6",
    );
}

#[test]
fn a_node_counts_the_matches_that_ran_through_it() {
    check(
        8,
        "
        cache 1-40
        cache 1-40
        cache 1-20
        hits
        cache 1-20 50
        hits",
        "
        hits 0:3 0:2 16:2 32:1
        hits 0:4 0:3 16:3 20:3 32:1 20:0",
    );
}

/// Three requests end below 1-16, two of them below 17-20; one ends below 50-60. What most share is served first, the
/// deepest before what it extends, and what is unknown last.
#[test]
fn depth_first_serves_the_heaviest_subtree_first() {
    check(
        8,
        "
        cache 1-20
        cache 1-16 30 31
        cache 50-60
        order 9 | 50-60 1 | 1-16 | 1-16 30 31 1 | 1-20 7 | 1-20 8",
        "1-20 7 | 1-20 8 | 1-16 30 31 1 | 1-16 | 50-60 1 | 9",
    );
}

#[test]
fn clear_drops_all_but_what_is_leased() {
    check(
        8,
        "
        acquire a 1-40
        write a 1-40
        acquire b 1-20
        write b 1-20 90 91
        release a
        acquire c 7 8 in 3
        release c
        clear
        show
        release b
        clear
        show",
        "
        a: matched 0, pages []
        b: matched 20, pages [0, 3], copy 4 rows 1->3
        c: matched 0, pages []
        evicted 2
        namespace 0 leases 1
          0: 1-16 [0] leases 1
            16: 17-20 [] leases 1
              20: 90 91 [3] leases 1
        free 6 cached 2 leased 0
        evicted 2
        free 8 cached 0 leased 0",
    );
}

#[test]
fn an_empty_prompt_is_a_prompt() {
    check(
        1,
        "
        acquire a
        commit a
        extend a 0
        show",
        "
        a: matched 0, pages []
        namespace 0 leases 1
        free 1 cached 0 leased 0",
    );
}

#[test]
fn eviction_frees_no_more_than_asked_and_keeps_the_beginning() {
    check(
        8,
        "
        cache 1-60
        evict 1
        show
        evict 2
        show
        match 1-60",
        "
        evicted 1
        namespace 0
          0: 1-48 [0 1 2]
        free 5 cached 3 leased 0
        evicted 2
        namespace 0
          0: 1-16 [0]
        free 7 cached 1 leased 0
        match 16",
    );
}

#[test]
#[should_panic(expected = "commit of 17 tokens to a lease with 0 committed and room for 16")]
fn a_commit_beyond_the_capacity_is_refused() {
    check(1, "acquire a 1-17\n extend a 16\n commit a 1-17", "");
}

#[test]
#[should_panic(expected = "tokens other than those committed before")]
#[cfg(debug_assertions)]
fn a_commit_of_other_tokens_is_refused() {
    check(1, "acquire a 1-5\n extend a 16\n commit a 1-5\n commit a 1-4 9 9", "");
}

#[test]
#[should_panic(expected = "dropped without release")]
#[cfg(debug_assertions)]
fn a_forgotten_lease_is_found_out() {
    drop(PrefixCache::new(1).acquire(0, &[]));
}
