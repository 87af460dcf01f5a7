-- Health of a FineTuneJob, a FineTuneSweep or an AdapterExport for Argo CD; argocd-cm.yaml has it where Argo CD looks for it.
local health = {status = "Progressing", message = "Waiting for the operator"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to see the change"
  return health
end
for _, condition in ipairs(status.conditions) do
  if condition.type == "Succeeded" then
    health.message = condition.reason .. ": " .. condition.message
    if condition.status == "True" then
      health.status = "Healthy"
    elseif condition.status == "False" then
      health.status = "Degraded"
    elseif condition.reason == "Suspended" then
      health.status = "Suspended"
    end
  end
end
return health
