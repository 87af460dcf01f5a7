-- Health of an Evaluation for Argo CD; argocd-cm.yaml has it where Argo CD looks for it. Not passed is Degraded.
local health = {status = "Progressing", message = "Waiting for the operator"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to see the change"
  return health
end
local succeeded, passed
for _, condition in ipairs(status.conditions) do
  if condition.type == "Succeeded" then
    succeeded = condition
  elseif condition.type == "Passed" then
    passed = condition
  end
end
if succeeded == nil then
  return health
end
local told = succeeded
if succeeded.status == "False" then
  health.status = "Degraded"
elseif succeeded.status == "Unknown" then
  if succeeded.reason == "Suspended" then
    health.status = "Suspended"
  end
elseif passed ~= nil and passed.status ~= "Unknown" then
  told = passed
  if passed.status == "True" then
    health.status = "Healthy"
  else
    health.status = "Degraded"
  end
end
health.message = told.reason .. ": " .. told.message
return health
