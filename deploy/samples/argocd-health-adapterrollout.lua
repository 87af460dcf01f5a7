-- Health of an AdapterRollout for Argo CD; argocd-cm.yaml has it where Argo CD looks for it. What is served goes on in
-- every state: Degraded means that nothing gets better without somebody.
local health = {status = "Progressing", message = "Waiting for the operator"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to see the change"
  return health
end
local moves = {
  WaitingForSource = true, EvaluationNotFound = true, NothingPassed = true, NoPods = true,
  Loading = true, Canary = true, Moving = true, PodNotUpdated = true,
}
for _, condition in ipairs(status.conditions) do
  if condition.type == "Ready" then
    health.message = condition.reason .. ": " .. condition.message
    if condition.status == "True" or condition.reason == "Paused" then
      health.status = "Healthy" -- paused: as somebody wanted it, and a sync wave may go on
    elseif condition.reason == "AwaitingApproval" then
      health.status = "Suspended" -- until people have decided
    elseif condition.status == "False" and not moves[condition.reason] then
      health.status = "Degraded"
    end
  end
end
return health
