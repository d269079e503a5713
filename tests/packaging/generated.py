"""What is generated: the Terraform module's variables and the policy in the README from the template of a site, and the
documents in the template for Systems Manager from their files.

`packaging/check --write` writes them; the test says where one has gone stale.
"""

import json
import re
import sys
import textwrap
from pathlib import Path

from template import load, part

PACKAGING = Path(__file__).parents[2] / "packaging"
VARIABLES = PACKAGING / "terraform/variables.tf"
README = PACKAGING / "aws/README.md"
# A fence in the README, after a line that names what it holds.
POLICY = re.compile(r"(<!-- generated: NodePolicy -->\n```json\n)(.*?)(```\n)", re.DOTALL)
SSM = PACKAGING / "ssm/sideline-ssm.yaml"
DOCUMENTS = sorted((PACKAGING / "ssm/documents").glob("*.yaml"))
BETWEEN = re.compile(r"(  # generated: documents\n)(.*?)(  # end of generated: documents\n)", re.DOTALL)
# The policy of the README: everything that can be asked for, in nobody's account.
EXAMPLE = {"Cluster": "field", "NodeRoleName": "sideline-node", "Site": "north", "RequiredSlots": 18}


def snake(name):
    """GpuImage → gpu_image, RootVolumeGiB → root_volume_gib."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.replace("GiB", "Gib")).lower()


def kind(about):
    """A parameter's type, in Terraform's words."""
    if about["Type"] == "Number":
        return "number"
    if about["Type"].startswith("List<"):
        return "list(string)"
    if about.get("AllowedValues") == ["true", "false"]:
        return "bool"
    return "string"


def variables(template):
    """variables.tf. A default of null leaves the parameter out: the template's own default counts, and stands there alone."""
    lines = ["# Generated from packaging/aws/sideline.yaml by `packaging/check --write`."]
    for name, about in template["Parameters"].items():
        text = about["Description"]
        if "Default" in about and about["Default"] != "":
            text += f" Default: {about['Default']}."
        lines += [
            "",
            f'variable "{snake(name)}" {{',
            "  description = <<-END",
            *textwrap.wrap(text, 112, initial_indent="    ", subsequent_indent="    "),
            "  END",
            # `terraform fmt` lines the equal signs up with that of the description.
            f"  type        = {kind(about)}",
            *(["  default     = null"] if "Default" in about else []),
            "}",
        ]
    return "\n".join(lines) + "\n"


def readme(text):
    """The README with the policy as the template renders it."""
    policy = json.dumps(part("Resources.NodePolicy.Properties.PolicyDocument", EXAMPLE), indent=2)
    return POLICY.sub(lambda match: match[1] + policy + "\n" + match[3], text)


def documents(text):
    """The template for Systems Manager with each document as a resource: Sideline-Drain.yaml is `Drain`."""
    resources = []
    for path in DOCUMENTS:
        lines = path.read_text(encoding="utf-8").splitlines()
        # What stands above a document is for whoever reads its file.
        while lines[0].startswith("#"):
            lines.pop(0)
        resources.append("\n".join([
            f"  {path.stem.removeprefix('Sideline-')}:",
            "    Type: AWS::SSM::Document",
            "    Properties:",
            f"      Name: {path.stem}",
            "      DocumentType: Command",
            "      TargetType: /AWS::SSM::ManagedInstance",
            # A new version of the same document: what refers to it goes on.
            "      UpdateMethod: NewVersion",
            "      Content:",
            textwrap.indent("\n".join(lines), " " * 8),
        ]) + "\n")
    return BETWEEN.sub(lambda match: match[1] + "\n".join(resources) + match[3], text)


def files():
    """Each generated file, and what it ought to hold."""
    return {
        VARIABLES: variables(load()),
        README: readme(README.read_text(encoding="utf-8")),
        SSM: documents(SSM.read_text(encoding="utf-8")),
    }


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
