"""nested/server.yaml, nested in template.yaml: who reaches the server, what it may do, that it drains, and when it is made."""

import json
import re
import sys

import pytest

from support import metric_math
from support.deployment import script
from support.stack import REPOSITORY
from support.template import document, functions, of_type, server_alarms
from test_template import permissions, text

sys.path.insert(0, str(REPOSITORY / "tools/cost"))
import server as cost  # noqa: E402

LANDING = "arn:${AWS::Partition}:s3:::${LandingBucket}"
REPOSITORY_ARN = "arn:${AWS::Partition}:ecr:${AWS::Region}:${AWS::AccountId}:repository/${Repository}"
ALLOWED = {
    "TaskRole": {
        "EventStreamArn": ["kinesis:PutRecords"],
        f"{LANDING}/events/*/spill-*": ["s3:PutObject"],
        f"{LANDING}/rejected/*/spill-*": ["s3:PutObject"],
        f"{LANDING}/schemas/*": ["s3:GetObject"],
    },
    "ExecutionRole": {
        "*": ["ecr:GetAuthorizationToken"],
        REPOSITORY_ARN: ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        "LogGroup": ["logs:CreateLogStream", "logs:PutLogEvents"],
    },
}
# Fargate's longest: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html
LONGEST_STOP_SECONDS = 120


def server():
    return document("nested/server.yaml")


def properties(template, name):
    return template["Resources"][name]["Properties"]


def container(template):
    one, = properties(template, "TaskDefinition")["ContainerDefinitions"]
    return one


def environment(template):
    return {one["Name"]: one["Value"] for one in container(template)["Environment"]}


# ---- Who may do what, and who reaches it ----

def check_roles(template):
    """The server may do what ingest on Lambda may; what starts it may fetch one image and write one log. Only tasks of this account
    may assume them."""
    roles = of_type(template["Resources"], "AWS::IAM::Role")
    assert roles.keys() == ALLOWED.keys()
    for name, role in roles.items():
        assert role.keys() == {"AssumeRolePolicyDocument", "PermissionsBoundary", "Policies"}, "no managed policies"
        assert role["AssumeRolePolicyDocument"]["Statement"] == [{
            "Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}}]
        assert role["PermissionsBoundary"]["Fn::If"][:2] == ["HasPermissionsBoundary", {"Ref": "PermissionsBoundary"}]
        assert permissions(role) == ALLOWED[name], name
    task = properties(template, "TaskDefinition")
    assert task["TaskRoleArn"] == {"Fn::GetAtt": ["TaskRole", "Arn"]}
    assert task["ExecutionRoleArn"] == {"Fn::GetAtt": ["ExecutionRole", "Arn"]}


def check_ingress(template):
    """From everywhere to the load balancer's 443, and from the load balancer alone to a task."""
    groups = of_type(template["Resources"], "AWS::EC2::SecurityGroup")
    assert groups.keys() == {"LoadBalancerSecurityGroup", "TaskSecurityGroup"}
    from_players, = groups["LoadBalancerSecurityGroup"]["SecurityGroupIngress"]
    assert (from_players["FromPort"], from_players["ToPort"], from_players["CidrIp"]) == (443, 443, "0.0.0.0/0")
    from_balancer, = groups["TaskSecurityGroup"]["SecurityGroupIngress"]
    assert from_balancer["SourceSecurityGroupId"] == {"Ref": "LoadBalancerSecurityGroup"}
    assert (from_balancer["FromPort"], from_balancer["ToPort"]) == (8080, 8081) and "CidrIp" not in from_balancer
    to_aws, = groups["TaskSecurityGroup"]["SecurityGroupEgress"]
    assert (to_aws["FromPort"], to_aws["ToPort"]) == (443, 443)
    assert not {one["Type"] for one in template["Resources"].values()} & {"AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"}
    network = properties(template, "Service")["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network["SecurityGroups"] == [{"Ref": "TaskSecurityGroup"}]
    assert properties(template, "LoadBalancer")["SecurityGroups"] == [{"Ref": "LoadBalancerSecurityGroup"}]


def check_container(template):
    """Nobody's user, nothing to write to, no capability, and logs that end."""
    one = container(template)
    assert one["User"] == "65532:65532" and one["ReadonlyRootFilesystem"] is True
    assert one["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]} and not one.get("Privileged")
    assert not {"MountPoints", "Secrets", "EntryPoint", "Command"} & one.keys()
    assert one["Image"]["Fn::Sub"].endswith("/${Repository}@${Image}"), "a digest, not a tag that moves"
    groups = of_type(template["Resources"], "AWS::Logs::LogGroup")
    assert len(groups) == 2 and all(group["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in groups.values())
    assert one["LogConfiguration"]["Options"]["mode"] == "non-blocking"


def check_tls(template):
    listener, = of_type(template["Resources"], "AWS::ElasticLoadBalancingV2::Listener").values()
    assert (listener["Protocol"], listener["Port"]) == ("TLS", 443)
    assert listener["Certificates"] == [{"CertificateArn": {"Ref": "CertificateArn"}}]
    assert "TLS13-1-2" in listener["SslPolicy"]


def check_draining(template):
    """What a task takes until it is forgotten by the balancer it answers, and it ends before it is killed."""
    drain = int(environment(template)["DRAIN_SECONDS"])
    attributes = {one["Key"]: one["Value"] for one in properties(template, "Tasks")["TargetGroupAttributes"]}
    assert int(attributes["deregistration_delay.timeout_seconds"]) == drain
    assert drain + 30 <= container(template)["StopTimeout"] <= LONGEST_STOP_SECONDS
    tasks = properties(template, "Tasks")
    assert tasks["HealthCheckPath"] == "/ready" and environment(template)["ADMIN_LISTEN"] == f"0.0.0.0:{tasks['HealthCheckPort']}"
    assert attributes["preserve_client_ip.enabled"] == "true"


def check_deployment(template):
    """A version that doesn't start is rolled back, no update takes tasks away, and scaling has both ends."""
    service = properties(template, "Service")
    deployment = service["DeploymentConfiguration"]
    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert deployment["MinimumHealthyPercent"] == 100 and "DesiredCount" not in service
    target = properties(template, "ScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == ({"Ref": "MinimumTasks"}, {"Ref": "MaximumTasks"})
    assert len(of_type(template["Resources"], "AWS::ApplicationAutoScaling::ScalingPolicy")) == 2


CHECKS = (check_roles, check_ingress, check_container, check_tls, check_draining, check_deployment)


@pytest.mark.parametrize("check", CHECKS)
def test_the_server_is_closed_drains_and_is_rolled_back(check):
    check(server())


def opened(template):
    template["Resources"]["Opened"] = {"Type": "AWS::EC2::SecurityGroupIngress", "Properties": {"CidrIp": "0.0.0.0/0"}}


@pytest.mark.parametrize("change", [
    text('"kinesis:PutRecords"', '"kinesis:*"'), text("/events/*/spill-*", "/*"), text('repository/${Repository}"', 'repository/*"'),
    text('"ecs-tasks.amazonaws.com"', '"*"'), text('"FromPort": 443', '"FromPort": 80'), opened,
    text('"SourceSecurityGroupId": {"Ref": "LoadBalancerSecurityGroup"}', '"CidrIp": "0.0.0.0/0"'),
    text('"65532:65532"', '"0"'), text('"ReadonlyRootFilesystem": true', '"ReadonlyRootFilesystem": false'),
    text("@${Image}", ":latest"), text('"TLS"', '"TCP"'), text('"StopTimeout": 120', '"StopTimeout": 60'),
    text('"Rollback": true', '"Rollback": false'), text('"LaunchType"', '"DesiredCount": 1, "LaunchType"'),
    text('"preserve_client_ip.enabled", "Value": "true"', '"preserve_client_ip.enabled", "Value": "false"'),
])
def test_every_change_that_opens_the_server_is_found(change):
    """These tests can fail."""
    template = server()
    change(template)
    with pytest.raises((AssertionError, KeyError, ValueError)):
        for check in CHECKS:
            check(template)


# ---- What it is given ----

def test_the_server_is_configured_as_the_function_is():
    """Each variable of ingest on Lambda, with the value of the same parameter."""
    passed = document()["Resources"]["Server"]["Properties"]["Parameters"]
    of_function = functions()["Ingest"]["Environment"]["Variables"]
    of_server = {name: passed.get(value["Ref"]) for name, value in environment(server()).items() if isinstance(value, dict)}
    assert of_function.items() <= of_server.items()
    # Alarms, checks and the dashboard count what comes by either under the function's name.
    assert of_server["METRICS_NAME"] == {"Ref": "IngestFunction"}


def test_the_parent_passes_exactly_what_the_nested_stack_takes():
    nested = server()
    assert document()["Resources"]["Server"]["Properties"]["Parameters"].keys() == nested["Parameters"].keys()
    text = json.dumps([nested["Resources"], nested["Conditions"]])
    for name in nested["Parameters"]:
        assert re.search(r'"Ref": "%s"|\$\{%s\}' % (name, name), text), f"{name} is unused"


def test_the_model_of_the_cost_takes_sizes_from_the_template():
    task, parameters = properties(server(), "TaskDefinition"), document()["Parameters"]
    assert (int(task["Cpu"]) / 1024, int(task["Memory"]) / 1024) == (cost.TASK_VCPU, cost.TASK_GB)
    assert parameters["ServerMinimumTasks"]["Default"] == cost.MINIMUM_TASKS
    assert parameters["KeyBuckets"]["Default"] == cost.KEY_BUCKETS
    by_cpu = properties(server(), "ScaleByCpu")["TargetTrackingScalingPolicyConfiguration"]
    assert by_cpu["TargetValue"] / 100 == cost.BUSY


# ---- Its alarms ----

def alarm_with(name, most):
    alarm = server_alarms()[name]
    expression = alarm["Metrics"][0]["Expression"]
    if isinstance(expression, dict):
        alarm["Metrics"][0]["Expression"] = expression["Fn::Sub"].replace("${MaximumTasks}", str(most))
    return alarm


UP, DOWN, GONE = {"healthy": 2}, {"healthy": 0}, {"healthy": None}


@pytest.mark.parametrize(("minutes", "state"), [
    pytest.param([UP] * 3, "OK", id="healthy"),
    pytest.param([UP, DOWN, UP], "OK", id="for a minute"),
    pytest.param([UP, DOWN, DOWN], "ALARM", id="for two minutes"),
    pytest.param([GONE] * 3, "ALARM", id="no task at all, so that nothing is measured"),
])
def test_a_server_without_a_healthy_task_pages(minutes, state):
    alarm = alarm_with("ServerDownAlarm", 20)
    assert "warning" not in str(alarm["AlarmName"])
    assert metric_math.state(alarm, alarm["Threshold"], minutes) == state


def busy(tasks, cpu, connections):
    return {"tasks": tasks, "cpu": cpu, "connections": connections}


@pytest.mark.parametrize(("minutes", "state"), [
    pytest.param([busy(20, 85, 1_000)] * 3, "ALARM", id="CPU of all tasks that there may be"),
    pytest.param([busy(20, 80, 1_000)] * 5, "OK", id="80 %"),
    pytest.param([busy(19, 99, 1_000)] * 5, "OK", id="another task may still be started"),
    pytest.param([busy(20, 10, 160_001)] * 3, "ALARM", id="connections of all tasks"),
    pytest.param([busy(20, 85, 1_000)] * 2, "OK", id="two minutes"),
    pytest.param([busy(None, None, None)] * 5, "OK", id="nothing is measured"),
])
def test_a_server_that_can_not_grow_any_more_warns(minutes, state):
    alarm = alarm_with("ServerFullAlarm", 20)
    assert metric_math.state(alarm, alarm["Threshold"], [busy(2, 1, 1)] * 5 + minutes) == state


# ---- When it is made ----

def holds(node, values):
    """A condition of the template, or an assertion of a rule, with these parameters."""
    if isinstance(node, str):
        return node
    (function, argument), = node.items()
    if function == "Ref":
        return values[argument]
    if function == "Condition":
        return holds(document()["Conditions"][argument], values)
    parts = [holds(part, values) for part in argument]
    return {"Fn::Equals": lambda: parts[0] == parts[1], "Fn::Not": lambda: not parts[0], "Fn::And": lambda: all(parts),
            "Fn::Or": lambda: any(parts)}[function]()


def given(text):
    defaults = {name: str(one.get("Default", "")) for name, one in document()["Parameters"].items()}
    return defaults | dict(one.split("=") for one in text.split())


@pytest.mark.parametrize(("parameters", "made"), [
    ("", {"IngestFunctionUrl"}),
    ("FrontDoor=HttpApi", {"HttpApi"}),
    ("FrontDoor=HttpApi DomainName=a.example", {"HttpApi", "OwnDomain"}),
    ("FrontDoor=Server DomainName=a.example", {"Server"}),
    ("FrontDoor=FunctionUrl SecondFrontDoor=Server DomainName=a.example", {"IngestFunctionUrl", "Server"}),
    ("FrontDoor=HttpApi SecondFrontDoor=Server DomainName=a.example", {"HttpApi", "OwnDomain", "Server"}),
    ("FrontDoor=Server SecondFrontDoor=Server DomainName=a.example", {"Server"}),
])
def test_a_change_of_the_front_door_has_both_for_a_while(parameters, made):
    """What refers to a front door is made only where it is."""
    values, resources = given(parameters), document()["Resources"]
    doors = {"IngestFunctionUrl", "HttpApi", "OwnDomain", "Server"}
    assert {door for door in doors if holds({"Condition": resources[door]["Condition"]}, values)} == made
    assert "Condition" not in resources["IngestFunction"]
    for name, output in document()["Outputs"].items():
        if name in ("DomainTarget", "ServerTarget") and holds({"Condition": output["Condition"]}, values):
            assert {"DomainTarget": "OwnDomain", "ServerTarget": "Server"}[name] in made


WHOLE = "FrontDoor=Server DomainName=a.example CertificateArn=arn ServerVpc=vpc-1 ServerSubnets=subnet-1 ServerImage=sha256:0"


@pytest.mark.parametrize("missing", [None, "DomainName", "CertificateArn", "ServerVpc", "ServerSubnets", "ServerImage"])
def test_half_a_server_is_refused_with_a_sentence_that_names_what_is_missing(missing):
    values = given(WHOLE)
    if missing:
        values[missing] = ""
    failed = [one["AssertDescription"] for rule in document()["Rules"].values() if holds(rule["RuleCondition"], values)
              for one in rule["Assertions"] if "Fn::Contains" not in one["Assert"] and not holds(one["Assert"], values)]
    if missing == "CertificateArn":
        assert "DomainName needs CertificateArn" in failed[0]
    else:
        assert [missing in sentence for sentence in failed] == [True] * bool(missing)


@pytest.mark.parametrize(("values", "failed"), [
    ({"KeyEventsPerSecond": "0"}, False), ({"KeyEventsPerSecond": "7"}, True), ({"KeyEventsPerSecond": "7", "WriteKeys": "web=0123456789abcdef"}, False),
])
def test_a_limit_of_keys_without_keys_is_refused(values, failed):
    rule, values = document()["Rules"]["LimitOfKeys"], given("") | values
    assert (holds(rule["RuleCondition"], values) and not all(holds(one["Assert"], values) for one in rule["Assertions"])) == failed


# ---- Its image ----

def values_for(monkeypatch, tmp_path, parameters):
    deploy = script("deploy")
    monkeypatch.setattr(deploy, "IMAGE", tmp_path / "image.tar")
    monkeypatch.setattr(deploy.registry, "revision", lambda archive: archive.read_text())
    monkeypatch.setattr(deploy.registry, "push", lambda archive, repository, tag: f"{archive.name} {repository} {tag}")
    return deploy.with_image(given(parameters))["ServerImage"]


@pytest.mark.parametrize(("parameters", "image"), [
    ("", ""),
    ("FrontDoor=Server ServerImage=sha256:0", "sha256:0"),
    ("FrontDoor=Server Commit=c", "image.tar playhead c"),
    ("SecondFrontDoor=Server ServerRepository=ours Commit=c", "image.tar ours c"),
])
def test_deploy_pushes_the_image_where_a_server_is_made(monkeypatch, tmp_path, parameters, image):
    (tmp_path / "image.tar").write_text("c")
    assert values_for(monkeypatch, tmp_path, parameters) == image


@pytest.mark.parametrize(("built", "says"), [(None, "no image"), ("older", "no image"), ("c-dirty", "not committed")])
def test_deploy_says_what_to_do_about_a_missing_an_older_or_a_dirty_image(monkeypatch, tmp_path, built, says):
    if built:
        (tmp_path / "image.tar").write_text(built)
    with pytest.raises(SystemExit, match=f"{says}.*make image"):
        values_for(monkeypatch, tmp_path, "FrontDoor=Server Commit=c")


def test_fewer_tasks_than_the_least_are_refused():
    deploy = script("deploy")
    deploy.refuse_what_does_not_fit(given("ServerMinimumTasks=3 ServerMaximumTasks=3"))
    with pytest.raises(SystemExit, match="ServerMaximumTasks=2"):
        deploy.refuse_what_does_not_fit(given("ServerMinimumTasks=3 ServerMaximumTasks=2"))
