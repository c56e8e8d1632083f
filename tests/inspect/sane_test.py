#!/usr/bin/env python3
"""Of images that are in order, platter inspect says what qemu-img info says."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import peers  # noqa: E402

PLATTER = None

# Format, creation options, size.
IMAGES = [
    ("raw", "", "10M"), ("raw", "", "1000"), ("qcow2", "", "1G"), ("qcow2", "compat=0.10", "1G"),
    ("qcow2", "cluster_size=512,refcount_bits=1", "10M"), ("qcow2", "cluster_size=2M,refcount_bits=64", "1T"),
    ("qcow2", "lazy_refcounts=on", "1G"), ("qcow2", "compression_type=zstd", "1G"), ("qcow2", "extended_l2=on", "1G"),
    ("qcow2", "data_file=DIR/data.raw,data_file_raw=on", "10M"), ("qcow2", "backing_file=DIR/base.raw,backing_fmt=raw", "10M"),
    ("qcow", "", "1G"), ("qed", "", "1G"), ("qed", "cluster_size=4096", "100M"), ("vdi", "", "1G"), ("vdi", "static=on", "10M"),
    ("vmdk", "", "1G"), ("vmdk", "subformat=streamOptimized", "1G"), ("vmdk", "subformat=monolithicFlat", "10M"),
    ("vmdk", "subformat=twoGbMaxExtentSparse", "5G"), ("vpc", "", "1G"), ("vpc", "force_size=on", "1G"), ("vhdx", "", "1G"),
    ("vhdx", "block_size=1M", "100M"), ("parallels", "", "1G"),
]


class SaneTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="sane-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "base.raw").write_bytes(bytes(1 << 20))

    def run_json(self, *words):
        ended = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60)
        self.assertEqual(ended.stderr, "")
        return json.loads(ended.stdout)

    def compare(self, path):
        info = self.run_json("qemu-img", "info", "-U", "--output=json", path)
        found = self.run_json(PLATTER, "inspect", "--output=json", path)
        self.assertEqual(found["format"], info["format"])
        self.assertEqual(found["virtual-size"], info["virtual-size"])
        self.assertEqual(found["file-size"], path.stat().st_size)
        # A VMDK descriptor's are its extents', which are not looked at.
        if "cluster-size" in info and not any(r["kind"] == "extent" for r in found["references"]):
            self.assertEqual(found.get("cluster-size"), info["cluster-size"])
        backing = [r for r in found["references"] if r["kind"] == "backing-file"]
        self.assertEqual([r["name"] for r in backing], [info["backing-filename"]] if "backing-filename" in info else [])
        self.assertEqual([r.get("format") for r in backing],
                         [info["backing-filename-format"]] if "backing-filename" in info else [])
        return info, found

    def test_facts_agree(self):
        for number, (form, options, size) in enumerate(IMAGES):
            with self.subTest(format=form, options=options):
                path = self.directory / f"{number}.{form}"
                words = ["-o", options.replace("DIR", str(self.directory))] if options else []
                subprocess.run(["qemu-img", "create", "-q", "-f", form, *words, path, size], check=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                info, found = self.compare(path)
                data = info.get("format-specific", {}).get("data", {})
                features = found.get("features", [])
                if form == "qcow2":
                    self.assertEqual("lazy-refcounts" in features, data.get("lazy-refcounts", False))
                    self.assertEqual("extended-l2" in features, data.get("extended-l2", False))
                    self.assertEqual(found["compression"], data["compression-type"])
                    names = [r["name"] for r in found["references"] if r["kind"] == "data-file"]
                    self.assertEqual(names, [data["data-file"]] if "data-file" in data else [])
                if form == "vmdk":
                    self.assertEqual(found["subformat"], data["create-type"])

    def test_lists_and_encryption_agree(self):
        path = self.directory / "a.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "10M"], check=True)
        for name in ("first", "a name with spaces"):
            subprocess.run(["qemu-img", "snapshot", "-c", name, path], check=True)
        subprocess.run(["qemu-img", "bitmap", "--add", path, "b0"], check=True)
        info, found = self.compare(path)
        self.assertEqual(found["snapshots"], [s["name"] for s in info["snapshots"]])
        self.assertEqual(found["bitmaps"], [b["name"] for b in info["format-specific"]["data"]["bitmaps"]])
        self.assertTrue(found["accepted"])

        secret = ("--object", "secret,id=s,data=x")
        for form, options, name in (("luks", "key-secret=s,iter-time=100", "luks1"),
                                    ("qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100", "luks")):
            path = self.directory / f"locked.{form}"
            peers.qemu_img_create_encrypted(*secret, "-f", form, "-o", options, path, "1M")
            found = self.run_json(PLATTER, "inspect", "--output=json", path)
            self.assertEqual((found["format"], found["encryption"], found["virtual-size"]), (form, name, 1 << 20))
            self.assertTrue(found["accepted"])


if __name__ == "__main__":
    PLATTER = sys.argv.pop(1)
    unittest.main()
