//! What is said of the findings of cameras, of what takes them in, and of sideline itself.

use super::Topic;
use crate::domain::xid::Fault;

const FRIGATE: &str = "https://docs.frigate.video/integrations/mqtt/";
const HERE: &str = "README.md of sideline";
const KMSG: &str = "https://docs.kernel.org/admin-guide/abi-testing.html";
const CREDENTIALS: &str = "https://docs.aws.amazon.com/systems-manager/latest/userguide/hybrid-activation-managed-nodes.html";

/// In the order of the configuration's list.
pub(super) static TOPICS: [Topic; 12] = [
    Topic {
        code: "camera.down",
        title: "no picture",
        fault: &[Fault::Link, Fault::Hardware, Fault::Application],
        meaning: "No frames arrive, or the source says that the camera is offline.",
        severity: "Degraded: one camera is no reason to move the others.",
        opens: "After cameras.down_after without frames.",
        clears: "With the first good reading.",
        todo: "The camera's power and cable, its switch port, its password.",
        others: &[],
        sources: &[FRIGATE],
    },
    Topic {
        code: "camera.degraded",
        title: "fewer frames than expected",
        fault: &[Fault::Link, Fault::Application],
        meaning: "Frames arrive, clearly fewer than cameras.expect says or than the source is set \
                  to.",
        severity: "Degraded.",
        opens: "After judge.camera_degraded_after.",
        clears: "With the first good reading.",
        todo: "Bandwidth, the camera's settings, the load of this node.",
        others: &[],
        sources: &[FRIGATE],
    },
    Topic {
        code: "camera.unknown",
        title: "nobody can say how the camera does",
        fault: &[Fault::Application],
        meaning: "Its source has not spoken of it, or not for too long. That is not known, and not \
                  the same as well.",
        severity: "Degraded.",
        opens: "When the last word is too old.",
        clears: "With the next word.",
        todo: "Is the source running, and is the broker?",
        others: &[],
        sources: &[FRIGATE],
    },
    Topic {
        code: "cameras.group",
        title: "many cameras went at once, for one cause",
        fault: &[Fault::Link, Fault::Application, Fault::Environment],
        meaning: "Cameras that fail within seconds of one another have one cause: a link, a switch \
                  that feeds them, the program that takes them in, a GPU. It is told as one \
                  finding, with the cause where one is seen.",
        severity: "Degraded.",
        opens: "With the cameras.",
        clears: "With the cameras.",
        todo: "Mend the cause; the switch before the cameras.",
        others: &[],
        sources: &[HERE],
    },
    Topic {
        code: "ingest.down",
        title: "the program that takes the cameras in is gone",
        fault: &[Fault::Application],
        meaning: "The source says itself that it is offline, or its last will was delivered.",
        severity: "Degraded: a program is not hardware, and another node would not run it better.",
        opens: "After cameras.down_after.",
        clears: "When it is online.",
        todo: "Restart it; read its log.",
        others: &[],
        sources: &[FRIGATE],
    },
    Topic {
        code: "agent.credentials",
        title: "sideline has no valid AWS credentials",
        fault: &[Fault::Environment],
        meaning: "Something is to be told or asked in AWS, and there are no credentials for it: \
                  they are missing or torn, have expired, or AWS refuses them. What is measured \
                  waits in the outbox. Capacity stays as it is.",
        severity: "Degraded; info while AWS does not answer, when nobody can renew them.",
        opens: "After a minute in which they can't be used.",
        clears: "When they can.",
        todo: "Is the SSM agent running: `systemctl restart amazon-ssm-agent`? Is the clock \
               right? Is the activation still valid? `sideline doctor` looks.",
        others: &[],
        sources: &[CREDENTIALS],
    },
    Topic {
        code: "agent.identity",
        title: "this machine can't show AWS who it is for long",
        fault: &[Fault::Environment],
        meaning: "The SSM agent sleeps: AWS has been answering for ten minutes, and it has not \
                  renewed the credentials that it should have renewed at half of their life. After \
                  a long time offline it tries again ever more rarely. Or the SSM registration \
                  can't be read any more, is gone, or names another instance than at the start.",
        severity: "Degraded; info where a registration came after the start, or never could be read.",
        opens: "Ten minutes after the credentials should have been renewed; of a registration, at \
                once.",
        clears: "When they are renewed, or the registration is what it was.",
        todo: "`systemctl restart amazon-ssm-agent` wakes it; with `restart_ssm_agent = true` in \
               [aws] sideline does that, at most once an hour. After a new registration: \
               `systemctl restart sideline`.",
        others: &[],
        sources: &[
            CREDENTIALS,
            "https://github.com/aws/amazon-ssm-agent/issues/616",
        ],
    },
    Topic {
        code: "agent.outbox_loss",
        title: "records that waited to be sent are lost, or would be",
        fault: &[Fault::Environment, Fault::Hardware],
        meaning: "The outbox was full, too old or corrupt, and records went; or the disk can't be \
                  used and they wait in memory, where a restart loses them.",
        severity: "Info after a loss; degraded while a restart would lose them.",
        opens: "At once.",
        clears: "After judge.forget_after; in memory, when the disk can be used again.",
        todo: "`sideline outbox list` says what; look at the disk under paths.state.",
        others: &[],
        sources: &[HERE],
    },
    Topic {
        code: "agent.config_rejected",
        title: "a new configuration was wrong and is not used",
        fault: &[Fault::Application],
        meaning: "The file or a parameter of SSM has mistakes; or the agent did not live for five \
                  minutes with new parameters, and took them back. What was good before stays in \
                  force.",
        severity: "Degraded.",
        opens: "With the attempt.",
        clears: "With a configuration that is right.",
        todo: "The evidence names the file or the parameter with line and column. Mend it; `sideline \
               config check FILE --over PARAMETER` names every mistake beforehand, and `sideline \
               config show` tells what is in force.",
        others: &[],
        sources: &[HERE],
    },
    Topic {
        code: "agent.kernel_log_gap",
        title: "kernel messages were lost before they were read",
        fault: &[Fault::Environment],
        meaning: "The kernel's log was overwritten faster than it could be read, or can't be read \
                  at all: evidence may be missing.",
        severity: "Info for a gap; degraded when it can't be read.",
        opens: "At once.",
        clears: "After judge.forget_after; when it can be read.",
        todo: "With kernel.dmesg_restrict=1 the agent needs CAP_SYSLOG, or the log as its standard \
               input, as its unit has it. For gaps: what floods the log?",
        others: &[],
        sources: &[KMSG],
    },
    Topic {
        code: "agent.ecs",
        title: "ECS can't be asked to move the work away",
        fault: &[Fault::NotStated],
        meaning: "failover.mode is drain, and the last call to ECS failed: the node's role may not \
                  make it, no ECS agent on this machine says which container instance it is, the \
                  account's calls are too many, or there is no way to ECS.",
        severity: "Degraded where only a person can mend it; info where it passes by itself.",
        opens: "With the call's answer; without an ECS agent, after a minute.",
        clears: "30 s after a call has succeeded.",
        todo: "Give the node's role the policy that the README shows, or start the ECS agent.",
        others: &[],
        sources: &[
            "https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html",
        ],
    },
    Topic {
        code: "agent.drain_held",
        title: "a guard holds a drain back",
        fault: &[Fault::NotStated],
        meaning: "The hardware can't carry its work, and this node should be drained, but too many \
                  of the cluster's external nodes are out already, several fail alike right after a \
                  change of driver or configuration, it was drained too often today, or the cluster \
                  can't be counted. Capacity tells the cloud all the same.",
        severity: "Info: the fault has a finding of its own.",
        opens: "When the hold is over.",
        clears: "When the guard lets go, or the node is sound.",
        todo: "Look at what changed. `sideline maintenance on` takes the node out whatever the guards say.",
        others: &[],
        sources: &[
            "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/container-instance-draining.html",
        ],
    },
];
