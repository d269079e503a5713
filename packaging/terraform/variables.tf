# Generated from packaging/aws/sideline.yaml by `packaging/check --write`.

variable "site" {
  description = <<-END
    The site's name, as in node.site of every node's configuration. It names the alarms too.
  END
  type        = string
}

variable "required_slots" {
  description = <<-END
    Pieces of work (camera streams) that the site has to carry all together. What its nodes report less than
    this is missing, and the cloud carries it. At most the sum of node.slots of all nodes, or something is
    always missing.
  END
  type        = number
}

variable "expected_nodes" {
  description = <<-END
    How many nodes of the site run sideline. Fewer that report are told to people. Default: 1.
  END
  type        = number
  default     = null
}

variable "fast_detection" {
  description = <<-END
    "true" looks every 10 seconds instead of every minute. It needs cloudwatch.period = "10s" on EVERY node of
    the site: capacity is a sum over one period, so a node that sends once a minute would be missing five times
    of six, and one that sends every 10 seconds would count six times over a minute. High resolution alarms cost
    more, and a datum that arrives late counts as missing sooner. Default: false.
  END
  type        = bool
  default     = null
}

variable "namespace" {
  description = <<-END
    The metrics' namespace, as in cloudwatch.namespace of every node's configuration. Default: Sideline.
  END
  type        = string
  default     = null
}

variable "node_role_name" {
  description = <<-END
    The name (no ARN, no path) of the IAM role with which the nodes are registered at Systems Manager. It gets
    an inline policy with what sideline calls. Empty: no policy; give the role these rights in another way.
  END
  type        = string
  default     = null
}

variable "cluster" {
  description = <<-END
    The name (no ARN) of the ECS cluster in which the site's nodes are registered as external instances.
  END
  type        = string
}

variable "deny_other_clusters" {
  description = <<-END
    "true" forbids the role to drain container instances of any other cluster, or to deregister them there. The
    stock policy AmazonEC2ContainerServiceforEC2Role allows both in the whole account. Leave it "false" where
    nodes of several clusters share the role: each would be denied the other's. Default: false.
  END
  type        = bool
  default     = null
}

variable "allow_ssm" {
  description = <<-END
    "true" also allows the two calls of Systems Manager that [ssm] makes: GetParameters below /sideline/, and
    PutComplianceItems for hybrid nodes. Only a role without the stock policy AmazonSSMManagedInstanceCore needs
    it: that allows both on everything. Default: false.
  END
  type        = bool
  default     = null
}

variable "parameter_key_arn" {
  description = <<-END
    The ARN of the KMS key of your own that encrypts SecureString parameters below /sideline/, if any. The nodes
    may then decrypt these with it, and nothing else. Parameters under the key that AWS manages need nothing
    here.
  END
  type        = string
  default     = null
}

variable "twin_task_definition" {
  description = <<-END
    The task definition (family, family:revision or ARN) of the work in the cloud: the same containers as on the
    nodes, with requiresCompatibilities EC2 and as many GPUs as they need. Not awsvpc, which external nodes lack
    too.
  END
  type        = string
}

variable "slots_per_task" {
  description = <<-END
    How many slots one task of the twin carries. Missing slots over this, rounded up, is the number of tasks.
    Default: 4.
  END
  type        = number
  default     = null
}

variable "max_cloud_tasks" {
  description = <<-END
    The most tasks of the twin at once, 0 to 20. 20 is Application Auto Scaling's default quota of steps in a
    policy; a larger site takes more slots per task. 0 only watches. Default: 5.
  END
  type        = number
  default     = null
}

variable "gpu_instance_type" {
  description = <<-END
    The EC2 instance type of the twin. See that your account's quota of G instances, in vCPUs, allows it.
    Default: g4dn.xlarge.
  END
  type        = string
  default     = null
}

variable "gpu_image" {
  description = <<-END
    The Systems Manager parameter that names the machine image. The default is AWS's ECS-optimized image with
    NVIDIA's driver. An image of your own with the containers already pulled starts faster. Default:
    /aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id.
  END
  type        = string
  default     = null
}

variable "root_volume_gib" {
  description = <<-END
    The root volume in GiB. It holds the pulled container images. At least what the machine image has. Default:
    60.
  END
  type        = number
  default     = null
}

variable "max_instances" {
  description = <<-END
    The most GPU instances at once, for the twin and for workers on the queue together. It caps the bill.
    Default: 5.
  END
  type        = number
  default     = null
}

variable "warm_pool_size" {
  description = <<-END
    Stopped instances that are kept ready, so that a start takes less than a launch. Their volumes are billed.
    0: none. Default: 0.
  END
  type        = number
  default     = null
}

variable "subnets" {
  description = <<-END
    The subnets for the GPU instances, best in several zones. They need a way to ECS, ECR and your cameras'
    streams (NAT or VPC endpoints, VPN).
  END
  type        = list(string)
}

variable "security_groups" {
  description = <<-END
    The GPU instances' security groups. Nothing has to come in for ECS.
  END
  type        = list(string)
}

variable "queue_name" {
  description = <<-END
    The name (no URL) of an SQS queue from which workers on the nodes and in the cloud take their work. Empty:
    none.
  END
  type        = string
  default     = null
}

variable "queue_task_definition" {
  description = <<-END
    The task definition of the worker in the cloud. Needed with QueueName.
  END
  type        = string
  default     = null
}

variable "backlog_per_slot" {
  description = <<-END
    How many waiting messages one slot is allowed. Slots are those of the nodes (Capacity) and of the cloud's
    workers together; where more wait, the cloud adds workers. Default: 10.
  END
  type        = number
  default     = null
}

variable "slots_per_queue_task" {
  description = <<-END
    How many slots one worker in the cloud is worth. Default: 4.
  END
  type        = number
  default     = null
}

variable "max_queue_tasks" {
  description = <<-END
    The most workers in the cloud at once, 0 to 20. Default: 5.
  END
  type        = number
  default     = null
}

variable "notification_email" {
  description = <<-END
    Who is told of alarms. The address gets a mail to confirm. Empty: subscribe to the topic yourself.
  END
  type        = string
  default     = null
}

variable "outbox_age_limit" {
  description = <<-END
    Seconds that a node's oldest unsent measurement may wait before people are told. Needs the profile essential
    or full; capacity does not send OutboxAge. Default: 900.
  END
  type        = number
  default     = null
}
