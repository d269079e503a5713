# The site as one CloudFormation stack: packaging/aws/sideline.yaml is the only place that says what it is made of.

resource "aws_cloudformation_stack" "site" {
  name          = "sideline-${var.site}"
  template_body = file("${path.module}/../aws/sideline.yaml")
  # The inline policy on the nodes' role has a name of its own.
  capabilities = ["CAPABILITY_NAMED_IAM"]

  # What is null is left out, so that the template's default counts.
  parameters = { for name, value in local.parameters : name => value if value != null }
}

locals {
  parameters = {
    Site                = var.site
    RequiredSlots       = var.required_slots
    ExpectedNodes       = var.expected_nodes
    FastDetection       = var.fast_detection
    Namespace           = var.namespace
    NodeRoleName        = var.node_role_name
    Cluster             = var.cluster
    DenyOtherClusters   = var.deny_other_clusters
    AllowSsm            = var.allow_ssm
    ParameterKeyArn     = var.parameter_key_arn
    TwinTaskDefinition  = var.twin_task_definition
    SlotsPerTask        = var.slots_per_task
    MaxCloudTasks       = var.max_cloud_tasks
    GpuInstanceType     = var.gpu_instance_type
    GpuImage            = var.gpu_image
    RootVolumeGiB       = var.root_volume_gib
    MaxInstances        = var.max_instances
    WarmPoolSize        = var.warm_pool_size
    Subnets             = join(",", var.subnets)
    SecurityGroups      = join(",", var.security_groups)
    QueueName           = var.queue_name
    QueueTaskDefinition = var.queue_task_definition
    BacklogPerSlot      = var.backlog_per_slot
    SlotsPerQueueTask   = var.slots_per_queue_task
    MaxQueueTasks       = var.max_queue_tasks
    NotificationEmail   = var.notification_email
    OutboxAgeLimit      = var.outbox_age_limit
  }
}
