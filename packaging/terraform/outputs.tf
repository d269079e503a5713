output "stack_id" {
  description = "The stack's ARN."
  value       = aws_cloudformation_stack.site.id
}

output "cloud_cluster" {
  description = "The cluster of the twin."
  value       = aws_cloudformation_stack.site.outputs["CloudCluster"]
}

output "twin_service" {
  description = "The service that carries what the site can't."
  value       = aws_cloudformation_stack.site.outputs["TwinService"]
}

output "queue_service" {
  description = "The service of workers on the queue; null without a queue."
  value       = lookup(aws_cloudformation_stack.site.outputs, "QueueService", null)
}

output "shortage_alarm" {
  description = "The alarm that starts the twin."
  value       = aws_cloudformation_stack.site.outputs["ShortageAlarm"]
}

output "whole_alarm" {
  description = "The alarm that stops the twin. ALARM is its normal state."
  value       = aws_cloudformation_stack.site.outputs["WholeAlarm"]
}

output "topic" {
  description = "The SNS topic on which alarms are told."
  value       = aws_cloudformation_stack.site.outputs["Topic"]
}

output "dashboard" {
  description = "The name of the site's CloudWatch dashboard."
  value       = aws_cloudformation_stack.site.outputs["Dashboard"]
}
