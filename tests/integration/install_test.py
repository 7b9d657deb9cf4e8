"""`cmake --install` gives a tree that runs where it was not made, with nothing of this machine but
glibc, and nothing in its environment."""

import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest

PROGRAMS = ("troupe", "troupe-cache", "troupe-coordinator", "troupe-worker")
GLIBC = re.compile(r"^(ld-linux.*|lib(c|m|mvec|pthread|rt|dl|resolv|util|anl|nsl))\.so\.\d+$")


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="troupe-install-")
        cls.addClassCleanup(folder.cleanup)
        made = pathlib.Path(folder.name, "made")
        subprocess.run(["cmake", "--install", os.environ["TROUPE_BUILD_DIR"], "--prefix", str(made),
                        "--strip"], check=True, stdout=subprocess.DEVNULL, timeout=280)
        cls.tree = pathlib.Path(folder.name, "some where else")
        shutil.move(made, cls.tree)

    def run_bare(self, *command):
        done = subprocess.run(["env", "-i", *map(str, command)], cwd="/", capture_output=True,
                              text=True, timeout=280)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_moved_tree_answers_in_an_empty_environment(self):
        out = self.run_bare(self.tree / "bin/troupe", "run", "--data-dir", self.tree / "data",
                            "--model", self.tree / "share/troupe/models/abacus",
                            "What is 4821 * 7306?")
        self.assertEqual(out.splitlines()[-1].strip(), "35222226")

    def test_programs_start_and_tell_their_usage(self):
        self.assertEqual(sorted(path.name for path in (self.tree / "bin").iterdir()),
                         sorted(PROGRAMS))
        for program in PROGRAMS:
            with self.subTest(program):
                self.assertIn("Usage", self.run_bare(self.tree / "bin" / program, "--help"))

    def test_nothing_but_glibc_comes_from_the_system(self):
        libraries = [path for path in (self.tree / "lib").iterdir() if not path.is_symlink()]
        self.assertGreater(len(libraries), 10)
        for path in [*(self.tree / "bin").iterdir(), *libraries]:
            for line in self.run_bare("ldd", path).splitlines():
                self.assertNotIn("not found", line, path.name)
                name, arrow, where = line.strip().partition(" => ")
                if not arrow or GLIBC.match(name):
                    continue
                self.assertTrue(where.startswith(str(self.tree) + "/"),
                                f"{path.name} takes {name} from {where}")

    def test_no_path_of_the_build_is_in_a_programs_search_path(self):
        for path in (self.tree / "bin").iterdir():
            out = self.run_bare("readelf", "-d", path)
            self.assertEqual(re.findall(r"R(?:UN)?PATH.*\[(.*)\]", out), ["$ORIGIN/../lib"])

    def test_license_and_protocol_are_there(self):
        share = self.tree / "share/troupe"
        self.assertIn("Apache License", (share / "LICENSE").read_text())
        self.assertTrue((share / "proto/troupe/v1/inference.proto").is_file())
        self.assertFalse((share / "models/abacus/train").exists())

    def test_tarball_holds_the_same(self):
        with tempfile.TemporaryDirectory(prefix="troupe-package-") as folder:
            subprocess.run(["cpack", "-B", folder], cwd=os.environ["TROUPE_BUILD_DIR"], check=True,
                           stdout=subprocess.DEVNULL, timeout=280)
            [package] = pathlib.Path(folder).glob("troupe-*.tar.gz")
            with tarfile.open(package) as archive:
                packed = {name.partition("/")[2] for name in archive.getnames()}
        installed = {str(path.relative_to(self.tree)) for path in self.tree.rglob("*")
                     if not path.is_relative_to(self.tree / "data")}
        self.assertEqual(packed - {""}, installed)


if __name__ == "__main__":
    unittest.main()
