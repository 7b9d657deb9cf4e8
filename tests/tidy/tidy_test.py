"""Tests of the tidy checks themselves: each must be able to fail."""

import unittest

import tidy


class SizesTest(unittest.TestCase):
    def test_long_line_is_found(self):
        self.assertTrue(list(tidy.check_sizes("base/a.h", "x" * 101)))
        self.assertFalse(list(tidy.check_sizes("base/a.h", "x" * 100)))

    def test_long_file_is_found(self):
        self.assertTrue(list(tidy.check_sizes("base/a.h", "\n" * 401)))
        self.assertFalse(list(tidy.check_sizes("kernels/a/a.h", "\n" * 800)))

    def test_long_function_is_found_inside_namespace_and_class(self):
        body = "int F() {\n" + "  int x;\n" * 70 + "}\n"
        for text in (body, "namespace a {\n" + body + "}\n", "class A {\n" + body + "};\n"):
            found = list(tidy.check_sizes("base/a.cc", text))
            self.assertEqual(len(found), 1, text)
            self.assertIn("function of 72 lines", found[0])

    def test_braces_in_literals_do_not_count(self):
        text = "int F() {\n  return \"{{{\"[0] + '{';  // {\n}\nint G() {\n}\n"
        self.assertEqual([n for _, n in tidy.functions(tidy.blank_literals(text))], [3, 2])


class IncludesTest(unittest.TestCase):
    def test_layers(self):
        bad = list(tidy.check_includes("kernels/a.cc", '#include "worker/b.h"\n'))
        self.assertEqual(len(bad), 1)
        self.assertFalse(list(tidy.check_includes("worker/a.cc", '#include "kernels/b.h"\n')))

    def test_vendor_edges(self):
        self.assertTrue(list(tidy.check_includes("worker/a.cc", "#include <grpcpp/grpcpp.h>\n")))
        ok = tidy.check_includes("worker/worker_service.cc", "#include <grpcpp/grpcpp.h>\n")
        self.assertFalse(list(ok))

    def test_kernels_never_see_proto(self):
        self.assertTrue(list(tidy.check_includes("kernels/a.cc", '#include "troupe/v1/x.pb.h"\n')))


if __name__ == "__main__":
    unittest.main()
