# One site with 18 cameras on two nodes. Put your own names, and a role and cluster that exist.

provider "aws" {
  region = "eu-west-1"
}

module "north" {
  source = "../.."

  site           = "north"
  required_slots = 18
  expected_nodes = 2

  node_role_name = "sideline-node"
  cluster        = "field"

  twin_task_definition = "cameras"
  slots_per_task       = 9
  max_cloud_tasks      = 2

  gpu_instance_type = "g4dn.xlarge"
  max_instances     = 2
  subnets           = ["subnet-0123456789abcdef0", "subnet-0fedcba9876543210"]
  security_groups   = ["sg-0123456789abcdef0"]

  notification_email = "operators@example.com"
}

output "dashboard" {
  value = module.north.dashboard
}
