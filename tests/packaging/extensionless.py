"""The programs of packaging/ssm, which have no `.py`, as modules."""

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

from generated import PACKAGING


def module(name):
    """packaging/ssm/NAME."""
    loader = SourceFileLoader(name, str(PACKAGING / "ssm" / name))
    made = module_from_spec(spec_from_loader(name, loader))
    loader.exec_module(made)
    return made


publish, roll, gate = map(module, ["publish", "roll", "gate"])
distributor = publish.distributor
