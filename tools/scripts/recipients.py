"""Who gets notices: a SecureString of Parameter Store that notify reads. It contains webhooks, which are secrets: nothing here
prints any of it."""

import json
import os
import re
import sys
from ipaddress import ip_address
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import ClientError

# As notify has them: monitoring-lambdas/src/notify/recipient.rs.
MOST_GROUPS = 20
FORMATS = ("text", "adaptive-card")
MEMBERS = {"group": str, "alarms": list, "webhook": (str, type(None)), "format": (str, type(None)), "email": bool, "mail": list, "digest": bool}
MOST_ADDRESSES, MOST_ADDRESS_BYTES = 10, 254
FORM = 'is not JSON of the form [{"group":"…","alarms":["*"],"webhook":"https://…","format":"text","email":true,"mail":["…"],"digest":true}]'
# Of an advanced parameter, which costs 0.05 USD a month; a standard one, which is free, has 4,096.
# https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
MOST_BYTES = 8192


def name(stack):
    """As template.yaml names it."""
    return f"/{stack}/recipients"


def given():
    """What RECIPIENTS holds, once it is sure that notify can use it; empty if it isn't set."""
    text = os.environ.get("RECIPIENTS", "").strip()
    if text and (problem := problem_of(text)):
        sys.exit(f"deploy: {problem}")
    return text


def of_older_version(stack):
    """What the stack's notify has in its environment, as versions had that knew no parameter; empty if it has none."""
    try:
        found = boto3.client("cloudformation").describe_stack_resource(StackName=stack, LogicalResourceId="NotifyFunction")
        function = found["StackResourceDetail"]["PhysicalResourceId"]
        configuration = boto3.client("lambda").get_function_configuration(FunctionName=function)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("ValidationError", "ResourceNotFoundException"):
            return ""
        raise
    text = configuration.get("Environment", {}).get("Variables", {}).get("RECIPIENTS", "").strip()
    if text and (problem := problem_of(text)):
        sys.exit(f"deploy: of the variable of {stack}'s notify, which this deployment would move to {name(stack)}: {problem}; "
                 "deploy with RECIPIENTS that can be used")
    return "" if text == "[]" else text


def stored(stack):
    """What the parameter holds; None if there is none."""
    ssm = boto3.client("ssm")
    try:
        return ssm.get_parameter(Name=name(stack), WithDecryption=True)["Parameter"]["Value"]
    except ssm.exceptions.ParameterNotFound:
        return None


def refuse_mails_without_sender(text, sender):
    """notify could send none of a group's mails. Recipients that can't be used at all are another matter."""
    groups = json.loads(text) if text and not problem_of(text) else []
    without = [one["group"] for one in groups if one.get("mail") and not sender]
    if without:
        sys.exit(f"deploy: the recipients' group {without[0]} has \"mail\", and MailFrom is not set: set it in samconfig.toml or PARAMETERS")


def put(stack, text):
    """Within five minutes notify uses it."""
    # Intelligent tiering makes a parameter advanced only where it must be, and leaves one that is so.
    boto3.client("ssm").put_parameter(Name=name(stack), Value=text, Type="SecureString", Overwrite=True, Tier="Intelligent-Tiering")
    groups = len(json.loads(text))
    print(f"recipients: {groups} group{'s' * (groups != 1)} in {name(stack)}", flush=True)


def remove(stack):
    ssm = boto3.client("ssm")
    try:
        ssm.delete_parameter(Name=name(stack))
    except ssm.exceptions.ParameterNotFound:
        return
    print(f"removed: {name(stack)}")


def problem_of(text):
    """What is wrong with recipients, by its place and without quoting anything; None if notify can use them."""
    if len(text.encode()) > MOST_BYTES:
        return f"RECIPIENTS has {len(text.encode())} bytes; a parameter takes {MOST_BYTES}"
    try:
        groups = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
        # Half of a surrogate pair, which notify's parser refuses.
        json.dumps(groups, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return f"RECIPIENTS {FORM}"
    if not isinstance(groups, list) or not all(has_form(one) for one in groups):
        return f"RECIPIENTS {FORM}"
    if len(groups) > MOST_GROUPS:
        return f"RECIPIENTS has {len(groups)} groups; it takes at most {MOST_GROUPS}"
    names = [one["group"] for one in groups]
    for at, one in enumerate(groups):
        if problem := problem_of_group(one):
            return f"RECIPIENTS[{at}]{problem}"
        if (first := names.index(one["group"])) < at:
            return f"RECIPIENTS[{at}].group is the same as RECIPIENTS[{first}].group"
    # A list replaces the group `everyone`: nobody would be notified of an alarm.
    if groups and not any(one["alarms"] for one in groups):
        return 'RECIPIENTS has no group that gets alarms; one must have "alarms" such as ["*"]'
    return None


def unique(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def refuse(_):
    raise ValueError


def has_form(one):
    """Whether it has the members that notify knows, of the kinds that it takes."""
    return (isinstance(one, dict) and {"group", "alarms"} <= one.keys() <= MEMBERS.keys()
            and all(isinstance(value, MEMBERS[member]) for member, value in one.items())
            and all(isinstance(text, str) for text in [*one["alarms"], *one.get("mail", [])]))


def problem_of_group(one):
    webhook, form = one.get("webhook"), one.get("format")
    if not re.fullmatch("[a-zA-Z0-9_-]{1,64}", one["group"]):
        return ".group must be 1 to 64 of a-z, A-Z, 0-9, - and _"
    # A group may be there for the digest alone.
    if (one["alarms"] or not one.get("digest")) and all(pattern.startswith("!") for pattern in one["alarms"]):
        return '.alarms must have at least one pattern that does not begin with !, such as "*"'
    if form is not None and webhook is None:
        return ".format is that of a webhook, and there is none"
    if form is not None and form not in FORMATS:
        return f".format must be one of: {', '.join(FORMATS)}"
    if webhook is not None and not is_address(webhook):
        return ".webhook can't be used: it must be a URL that begins with https://; http:// works for this machine only"
    mail = one.get("mail", [])
    if len(mail) > MOST_ADDRESSES or not all(is_mail_address(address) for address in mail):
        return f".mail must have at most {MOST_ADDRESSES} addresses such as a@example.com, without names"
    if webhook is None and not one.get("email") and not mail:
        return ' must have a webhook, "email":true, or "mail" with addresses'
    return None


def is_mail_address(text):
    plain = r'[!#-\'*+\-./0-9=?A-Z^-~]+'
    return len(text) <= MOST_ADDRESS_BYTES and re.fullmatch(f"{plain}@{plain}", text) is not None


def is_address(text):
    # As notify's library for URLs: printable ASCII, and a host of a name or an address.
    if not re.fullmatch("[!-;=?-_a-~]+", text):
        return False
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    return re.fullmatch(r"[A-Za-z0-9._-]+|[0-9a-f:.]+", url.hostname or "") is not None and (url.scheme == "https" or url.scheme == "http" and is_loopback(url.hostname))


def is_loopback(host):
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
