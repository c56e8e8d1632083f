#!/usr/bin/env python3
"""Whether the power-cut suite notices a broken order of writes.

Each mutation takes one step out of the order in which qcow2 metadata reaches the disk. The tree is
copied, the mutation made, the suite built and run: it must fail. A step that another one's flush
covers (new tables and counts by that of the data) is not listed by itself. Takes some minutes:

    tests/powercut/mutations.py [--runs N] [NAME...]

With --check nothing is built: every mutation's text must be in its file, once.
"""

import argparse
import dataclasses
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
QCOW2 = "src/format/qcow2/"


@dataclasses.dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    text: str
    instead: str
    # The program that must notice, and how it is called.
    test: tuple = ("powercut_test",)


MUTATIONS = [
    Mutation("mappings-before-what-they-name", QCOW2 + "order.h",
             "     kUndurableData | kUndurableRefcountBlocks | kUndurableRefcountTable | "
             "kUndurableNewTables,\n", "     0,\n"),
    Mutation("refcount-table-before-blocks", QCOW2 + "order.h",
             "{WriteStep::kRefcountTable, kUndurableRefcountBlocks,", "{WriteStep::kRefcountTable, 0,"),
    Mutation("flush-without-flush", QCOW2 + "writeback.cc",
             "    round.undurable |= rule.leaves;\n  }\n  co_return co_await image_.flush();",
             "    round.undurable |= rule.leaves;\n  }\n  co_return Result<void>{};"),
    Mutation("settled-flush-without-flush", QCOW2 + "writeback.cc",
             "if (is_settled()) co_return co_await image_.flush();",
             "if (is_settled()) co_return Result<void>{};"),
    Mutation("mappings-before-data-in-a-data-file", QCOW2 + "image.cc",
             "  if (data != file) PLATTER_CO_TRY(co_await data->flush());\n", ""),
    Mutation("failed-round-counts-as-durable", QCOW2 + "writeback.cc",
             "settle(round, written.has_value());", "settle(round, true);"),
    Mutation("free-before-it-is-unlinked", QCOW2 + "free_queue.cc",
             "  return std::exchange(unlinked_, {});",
             "  append(unlinked_, queued_);\n  queued_clusters_ = 0;\n"
             "  return std::exchange(unlinked_, {});"),
    Mutation("free-under-a-reader", QCOW2 + "reclaim.cc",
             "    co_await image_.node->requests_in_flight_end();\n", "",
             test=("format_test", "--gtest_filter=ReclaimTest.*")),
    Mutation("freed-though-linked", QCOW2 + "write.cc",
             "if (!result) co_await abandon(plan, plan.linked);",
             "if (!result) co_await abandon(plan, 0);"),
    Mutation("streams-freed-though-linked", QCOW2 + "write_compressed.cc",
             "if (stream.linked || stream.host_offset == 0) continue;",
             "if (stream.host_offset == 0) continue;", test=("property_test",)),
    Mutation("stream-freed-in-part", QCOW2 + "write.cc",
             "geometry.clusters_for(span.host_offset + span.length - first)", "1",
             test=("property_test",)),
    Mutation("free-before-the-discard-ends", QCOW2 + "reclaim.cc",
             "  const unsigned bits = image_.geometry.cluster_bits;\n"
             "  for (const FreedRange& range : ranges) {\n    const bool pass",
             "  const unsigned bits = image_.geometry.cluster_bits;\n"
             "  std::vector<FreedRange> all;\n  std::swap(all, ranges);\n"
             "  for (const FreedRange& range : all) {\n"
             "    auto lock = co_await image_.allocation.lock();\n"
             "    PLATTER_CO_TRY(co_await refcounts_.release(range.offset, range.clusters));\n  }\n"
             "  for (const FreedRange& range : all) {\n"
             "    (void)co_await image_.file->discard(range.offset, range.clusters << bits);\n  }\n"
             "  for (const FreedRange& range : ranges) {\n    const bool pass", test=("property_test",)),
    Mutation("nothing-is-reclaimed", QCOW2 + "reclaim.cc",
             "  if (frees_.has_unlinked()) start_reclaim();\n", "",
             test=("format_test", "--gtest_filter=ReclaimTest.*")),
    Mutation("old-l1-table-never-freed", QCOW2 + "mapping.cc",
             "    frees_.add(image_.header.l1_table_offset, old_clusters, FreeReason::kOther);\n", "    ;\n",
             test=("property_test",)),
    Mutation("dirty-bit-cleared-with-the-first-user", QCOW2 + "reclaim.cc",
             "  PLATTER_CO_TRY(co_await writeback_.flush());\n  if (frees_.has_unlinked())",
             "  PLATTER_CO_TRY(co_await writeback_.flush());\n"
             "  PLATTER_CO_TRY(co_await image_.change_incompatible(0, kDirty));\n  if (frees_.has_unlinked())",
             test=("format_test", "--gtest_filter=ReclaimTest.*")),
    Mutation("background-work-outlives-the-image", QCOW2 + "reclaim.cc",
             "  co_await background_.close();\n", "", test=("property_test",)),
    Mutation("reads-are-not-bounded", "src/block/request.cc",
             "      base::range_within(offset, buffers.size(), s.driver->size())) [[likely]] {\n"
             "    return s.driver->read(offset, buffers);",
             "      base::range_within(offset, buffers.size(), kMaxLength)) [[likely]] {\n"
             "    return s.driver->read(offset, buffers);",
             test=("block_test", "--gtest_filter=RequestTest.*")),
    Mutation("overlaps-are-not-seen", QCOW2 + "overlap_map.cc",
             "    Leaf* leaf = make(word / kLeafWords);\n", "    Leaf* leaf = nullptr;\n",
             test=("format_test", "--gtest_filter=Overlap*")),
    Mutation("dirty-bit-cleared-early", QCOW2 + "reclaim.cc",
             "  PLATTER_CO_TRY(co_await settle());\n"
             "  Result<void> stored = co_await store_bitmaps();\n"
             "  PLATTER_CO_TRY(co_await end_file_with_sector());\n",
             "  if (image_.header.has(kDirty)) {\n"
             "    PLATTER_CO_TRY(co_await image_.change_incompatible(0, kDirty));\n"
             "    PLATTER_CO_TRY(co_await image_.file->flush());\n  }\n"
             "  PLATTER_CO_TRY(co_await settle());\n"
             "  Result<void> stored = co_await store_bitmaps();\n"
             "  PLATTER_CO_TRY(co_await end_file_with_sector());\n"),
    Mutation("new-refcount-table-not-durable", QCOW2 + "refcounts.cc",
             "  if (grown) grown = co_await image_.file->flush();\n", ""),
    Mutation("size-before-what-it-exposes", QCOW2 + "resize.cc",
             "  PLATTER_CO_TRY(co_await writeback_.flush());\n"
             "  co_return co_await store_size(new_size);",
             "  PLATTER_CO_TRY(co_await store_size(new_size));\n"
             "  co_return co_await writeback_.flush();"),
    Mutation("l1-before-its-tables-are-counted", QCOW2 + "resize.cc",
             "  PLATTER_CO_TRY(co_await writeback_.flush_all());\n"
             "  auto lock = co_await image_.allocation.lock();\n"
             "  co_return co_await mapping_.adopt_l1(std::move(next));",
             "  auto lock = co_await image_.allocation.lock();\n"
             "  co_return co_await mapping_.adopt_l1(std::move(next));"),
    Mutation("bitmaps-not-in-use", QCOW2 + "write.cc",
             "  PLATTER_CO_TRY(co_await bitmaps_.prepare_write());\n", ""),
    Mutation("bitmaps-in-use-not-durable", QCOW2 + "bitmap_store.cc",
             "  PLATTER_CO_TRY(co_await image_.file->flush());\n  directory_uncertain_ = false;\n",
             "  directory_uncertain_ = false;\n"),
    Mutation("bitmaps-named-before-they-are-durable", QCOW2 + "bitmap_writer.cc",
             "  co_return co_await writeback_.flush_all();\n", "  co_return Result<void>{};\n"),
    Mutation("header-before-what-lies-beyond-its-sector", QCOW2 + "header_rewrite.cc",
             "rewrite.writes[i].bytes));\n    PLATTER_CO_TRY(co_await image.file->flush());\n",
             "rewrite.writes[i].bytes));\n"),
    Mutation("header-over-the-present-one", QCOW2 + "header_rewrite.cc",
             "is_free(usual.rest_offset, usual.rest)", "true"),
    Mutation("moved-clusters-named-before-they-are-copied", QCOW2 + "relocator.cc",
             "  if (copied) copied = co_await file_.flush();\n", ""),
    Mutation("old-places-uncounted-before-they-are-left", QCOW2 + "relocator.cc",
             "  PLATTER_CO_TRY(co_await write_references(references));\n  PLATTER_CO_TRY(co_await file_.flush());\n",
             "  PLATTER_CO_TRY(co_await write_references(references));\n"),
    Mutation("moved-data-keeps-its-cipher", QCOW2 + "relocator.cc",
             "piece.content == Content::kGuestData && encryption_ != nullptr", "false"),
    Mutation("bitmaps-sought-where-they-were", QCOW2 + "compact.cc",
             "    PLATTER_CO_TRY(co_await image.bitmaps_.reload_places());\n", "",
             test=("format_test", "--gtest_filter=CompactTest.*")),
]


def wrong_texts():
    for mutation in MUTATIONS:
        found = (ROOT / mutation.file).read_text().count(mutation.text)
        if found != 1:
            yield f"{mutation.name}: its text is {found} times in {mutation.file}, not once"


def copy_tree(to):
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def suite_fails(tree, test, runs):
    subprocess.run(["cmake", "--build", "build/release", "--target", test[0]], cwd=tree,
                   stdout=subprocess.DEVNULL, check=True)
    command = [f"build/release/bin/{test[0]}", *test[1:]]
    if runs and test[0] == "powercut_test":
        command.append(f"--runs={runs}")
    ended = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, errors="replace")
    # A test that failed, or an assertion that stopped the program.
    lines = [line for line in ended.stdout.splitlines() if "Failure" in line or "assert" in line]
    if ended.returncode != 0:
        at = ended.stdout.find("Failure")
        print(f"    {' '.join(ended.stdout[at:].split())[:300]}")
    return ended.returncode != 0 and bool(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--runs", type=int, help="seeds of each test (default: the suite's own)")
    parser.add_argument("--check", action="store_true", help="only look whether the mutations apply")
    options = parser.parse_args()
    wrong = list(wrong_texts())
    unknown = set(options.names) - {mutation.name for mutation in MUTATIONS}
    wrong += [f"no mutation '{name}'" for name in sorted(unknown)]
    if wrong or options.check:
        print("\n".join(wrong) or f"{len(MUTATIONS)} mutations apply")
        return 1 if wrong else 0

    survived = []
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch:
        tree = pathlib.Path(scratch)
        copy_tree(tree)
        subprocess.run(["cmake", "--preset", "release"], cwd=tree, stdout=subprocess.DEVNULL, check=True)
        for test in sorted({mutation.test for mutation in MUTATIONS}):
            if suite_fails(tree, test, options.runs):
                print(f"{test[0]} fails without any mutation")
                return 1
        for mutation in MUTATIONS:
            if options.names and mutation.name not in options.names:
                continue
            path = tree / mutation.file
            whole = path.read_text()
            path.write_text(whole.replace(mutation.text, mutation.instead))
            noticed = suite_fails(tree, mutation.test, options.runs)
            path.write_text(whole)
            print(f"{'noticed ' if noticed else 'SURVIVED'} {mutation.name}", flush=True)
            if not noticed:
                survived.append(mutation.name)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
