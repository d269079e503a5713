"""The Terraform module around the template: it passes every parameter, and names nothing that there is not."""

import re
import unittest

import hcl2

from generated import PACKAGING, snake
from template import load

MODULE = PACKAGING / "terraform"
FILES = sorted(MODULE.rglob("*.tf"))


def blocks(path, kind):
    """The blocks of a kind in one file, by their labels, as the parser gives them."""
    for block in hcl2.loads(path.read_text(encoding="utf-8")).get(kind, []):
        yield from ((label.strip('"'), body) for label, body in block.items() if label != "__is_block__")


class Module(unittest.TestCase):
    def setUp(self):
        self.template = load()
        self.variables = dict(blocks(MODULE / "variables.tf", "variable"))

    def test_every_file_parses(self):
        self.assertEqual(
            [path.relative_to(MODULE).as_posix() for path in FILES],
            ["examples/site/main.tf", "main.tf", "outputs.tf", "variables.tf", "versions.tf"],
        )
        for path in FILES:
            self.assertTrue(hcl2.loads(path.read_text(encoding="utf-8")), path)

    def test_each_parameter_gets_its_variable(self):
        (parameters,) = [body for name, body in blocks(MODULE / "main.tf", "locals") if name == "parameters"]
        passed = {name: re.findall(r"var\.(\w+)", value) for name, value in parameters.items() if name != "__is_block__"}
        self.assertEqual(passed, {name: [snake(name)] for name in self.template["Parameters"]})

    def test_variables_are_parameters(self):
        self.assertEqual(list(self.variables), [snake(name) for name in self.template["Parameters"]])

    def test_outputs_are_outputs(self):
        outputs = dict(blocks(MODULE / "outputs.tf", "output"))
        named = {re.search(r'outputs(?:\["|, ")(\w+)"', str(body["value"]))[1] for name, body in outputs.items()
                 if name != "stack_id"}
        self.assertEqual(named, set(self.template["Outputs"]))

    def test_the_example_gives_what_has_no_default(self):
        ((_, example),) = blocks(MODULE / "examples/site/main.tf", "module")
        given = {name for name in example if name not in ("source", "__is_block__")}
        self.assertLessEqual(given, set(self.variables))
        self.assertLessEqual({name for name, body in self.variables.items() if "default" not in body}, given)


if __name__ == "__main__":
    unittest.main()
