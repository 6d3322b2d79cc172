"""The template of a central notify alone: what template.yaml has of it, and nothing of the rest. It is cut out at each deployment, so that
there is no second copy to keep, and no stack has to move its topics, to which people's e-mail addresses are subscribed."""

import json
import re
from copy import deepcopy
from pathlib import Path

from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[2]
# Whatever these refer to must be among them.
OF_NOTIFY = ("AlarmsTopic", "NoticesTopic", "NoticesSubscription", "LastResortTopic", "LastResortSubscription", "NotifyFunction", "NotifyRole",
             "NotifyLogGroup", "ReportsBus", "ReportsRule", "ReportsPermission", "LandingBucket", "LandingBucketPolicy")
# Parameters that only `make deploy` reads.
OF_THE_DEPLOYMENT = ("Environment", "Commit")
# What fills the bucket elsewhere, and who is told; here it keeps incidents alone.
OF_LANDING = ("NotificationConfiguration",)


def reduced(template, alarms):
    """A template of the resources of notify, from template.yaml as `sam build` wrote it and alarms.yaml, both as documents."""
    template = deepcopy(template)
    resources = {name: template["Resources"][name] for name in OF_NOTIFY}
    bucket = resources["LandingBucket"]
    bucket.pop("DependsOn", None)
    for name in OF_LANDING:
        bucket["Properties"].pop(name)
    lifecycle = bucket["Properties"]["LifecycleConfiguration"]
    lifecycle["Rules"] = [rule for rule in lifecycle["Rules"] if "Fn::If" not in rule and not rule.get("Prefix", "").startswith(("digests/", "warehouse/"))]
    given = template["Resources"]["Alarms"]["Properties"]["Parameters"]
    resources |= {name: filled(one, given) for name, one in alarms["Resources"].items()
                  if not name.startswith("Fn::") and {"Ref": "LastResortTopic"} in one.get("Properties", {}).get("AlarmActions", [])}
    cut = {name: template[name] for name in ("AWSTemplateFormatVersion", "Transform", "Globals") if name in template}
    cut |= {"Description": "Playhead's notify alone, for stacks of other accounts and regions.", "Resources": resources}
    known = resources.keys() | {f"{name}{event}" for name, one in resources.items() for event in one.get("Properties", {}).get("Events", {})}
    parameters = template["Parameters"].keys()
    cut["Outputs"] = {name: one for name, one in template["Outputs"].items() if name != "DashboardUrl" and references(one["Value"]) <= known | parameters}
    cut["Conditions"] = conditions(cut, template["Conditions"])
    used = references(cut) | set(OF_THE_DEPLOYMENT)
    cut["Parameters"] = {name: one for name, one in template["Parameters"].items() if name in used}
    if missing := sorted(used - known - parameters):
        raise ValueError(f"the central template would refer to {', '.join(missing)}, which it does not have")
    return cut


def write(built):
    """Beside the template that was built, whose packages it names by their paths."""
    alarms = yaml_parse((ROOT / "alarms.yaml").read_text())
    path = built.with_name("central.yaml")
    # JSON is YAML.
    path.write_text(json.dumps(reduced(yaml_parse(built.read_text()), alarms), indent=1))
    return path


def filled(node, given):
    """A part of a nested template with the parent's values in the place of its parameters."""
    if isinstance(node, list):
        return [filled(one, given) for one in node]
    if not isinstance(node, dict):
        return node
    if isinstance(name := node.get("Ref"), str) and name in given:
        return given[name]
    if isinstance(text := node.get("Fn::Sub"), str):
        plain = {name: value["Ref"] for name, value in given.items() if isinstance(value, dict) and "Ref" in value}
        return {"Fn::Sub": re.sub(r"\$\{(\w+)\}", lambda found: "${%s}" % plain.get(found[1], found[1]), text)}
    return {name: filled(one, given) for name, one in node.items()}


def conditions(cut, declared):
    """Those that the rest needs, and those that these need."""
    wanted, found = named_conditions(cut), {}
    while wanted:
        name = wanted.pop()
        found[name] = declared[name]
        wanted |= named_conditions(declared[name]) - found.keys()
    return found


def named_conditions(node):
    if isinstance(node, list):
        return set().union(*map(named_conditions, node))
    if not isinstance(node, dict):
        return set()
    own = {node["Condition"]} if isinstance(node.get("Condition"), str) else set()
    if "Fn::If" in node:
        own.add(node["Fn::If"][0])
    return own.union(*map(named_conditions, node.values()))


def references(node):
    """The logical ids and parameters that a part of a template refers to."""
    if isinstance(node, list):
        return set().union(*map(references, node))
    if not isinstance(node, dict):
        return set()
    found = set().union(*map(references, node.values()))
    if isinstance(node.get("Ref"), str):
        found.add(node["Ref"])
    if "Fn::GetAtt" in node:
        found.add(node["Fn::GetAtt"].split(".")[0] if isinstance(node["Fn::GetAtt"], str) else node["Fn::GetAtt"][0])
    if "Fn::Sub" in node:
        text, values = node["Fn::Sub"] if isinstance(node["Fn::Sub"], list) else (node["Fn::Sub"], {})
        found |= {name.split(".")[0] for name in re.findall(r"\$\{([\w:.]+)\}", text)} - values.keys()
    return {name for name in found if not name.startswith("AWS::")}
