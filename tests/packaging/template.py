"""Reads the CloudFormation template and resolves it for given parameters, as the stack would.

Also a program: prints one part of the resolved template as JSON.

    template.py Resources.NodePolicy.Properties.PolicyDocument Site=north Cluster=field NodeRoleName=node …
"""

import json
import re
import sys
from pathlib import Path

import yaml

TEMPLATE = Path(__file__).parents[2] / "packaging/aws/sideline.yaml"
PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::AccountId": "123456789012",
    "AWS::StackName": "sideline",
}
NO_VALUE = object()


class Loader(yaml.SafeLoader):
    """YAML as CloudFormation writes it: `!Ref x` is {"Ref": x}, `!Sub x` is {"Fn::Sub": x}."""


def _intrinsic(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", _intrinsic)


def load(path=TEMPLATE):
    """The template as written."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader)


class Resolver:
    """Resolves intrinsic functions. What only a stack would know is named: `<TwinService>`, `<TwinService.Name>`."""

    def __init__(self, template, parameters):
        self.template = template
        known = template["Parameters"]
        for name in parameters:
            if name not in known and name not in PSEUDO:
                raise KeyError(f"the template has no parameter {name}")
        self.values = dict(PSEUDO)
        for name, about in known.items():
            if name in parameters:
                self.values[name] = parameters[name]
            elif "Default" in about:
                self.values[name] = about["Default"]
            else:
                self.values[name] = f"<{name}>"
            if about["Type"] == "Number" and not str(self.values[name]).startswith("<"):
                self.values[name] = int(self.values[name])
        self.values |= {name: parameters[name] for name in PSEUDO if name in parameters}

    def condition(self, name):
        return self.resolve(self.template["Conditions"][name])

    def resolve(self, value):
        if isinstance(value, list):
            resolved = (self.resolve(item) for item in value)
            return [item for item in resolved if item is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument), = value.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self.function(name, argument)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NO_VALUE}

    def function(self, name, argument):
        match name:
            case "Ref":
                return self.reference(argument)
            case "Fn::GetAtt":
                return f"<{'.'.join(argument)}>"
            case "Fn::Sub":
                text, extra = argument if isinstance(argument, list) else (argument, {})
                extra = {key: self.resolve(item) for key, item in extra.items()}
                put = lambda m: str(extra[m[1]]) if m[1] in extra else str(self.reference(m[1]))
                return re.sub(r"\$\{([^!}]+)\}", put, text)
            case "Fn::If":
                condition, then, otherwise = argument
                return self.resolve(then if self.condition(condition) else otherwise)
            case "Fn::Equals":
                left, right = (str(self.resolve(item)) for item in argument)
                return left == right
            case "Fn::Not":
                return not self.resolve(argument[0])
            case "Fn::FindInMap":
                mapping, top, second = (self.resolve(item) for item in argument)
                return self.template["Mappings"][mapping][str(top)][second]
            case "Fn::Base64":
                return self.resolve(argument)
        raise NotImplementedError(f"{name} is not resolved here; the template did not use it")

    def reference(self, name):
        if name == "AWS::NoValue":
            return NO_VALUE
        return self.values.get(name, f"<{name}>")

    def resources(self):
        """The resources that a stack with these parameters has, resolved."""
        return {
            name: self.resolve({key: item for key, item in about.items() if key != "Condition"})
            for name, about in self.template["Resources"].items()
            if "Condition" not in about or self.condition(about["Condition"])
        }


def part(path, parameters):
    """One part of the resolved template, by its dotted path."""
    template = load()
    resolver = Resolver(template, parameters)
    value = {"Resources": resolver.resources(), "Mappings": template["Mappings"]}
    for name in path.split("."):
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


if __name__ == "__main__":
    print(json.dumps(part(sys.argv[1], dict(pair.split("=", 1) for pair in sys.argv[2:])), indent=2))
