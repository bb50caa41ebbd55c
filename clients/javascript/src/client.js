/** `Client`: everything that a studio can be asked for. What it answers is in `index.d.ts`, field by field. */

import { follow } from "./follow.js";
import { path, Requests } from "./requests.js";
import { uploadBlob, uploadStream } from "./uploads.js";

const PATIENT = { timeout: 60_000 }; // the studio itself waits: for a trainer to end, or for another service
const LONG = { timeout: 600_000 };

export class Client {
  #requests;

  /**
   * A connection to a studio. Whatever the studio refuses is thrown as the `StudioError` of its code; what fails for
   * a moment is sent again up to `repeats` times, and done once.
   */
  constructor({ url, apiKey, timeout = 30_000, repeats = 3, fetch = globalThis.fetch.bind(globalThis) }) {
    this.#requests = new Requests({ url, apiKey, timeout, repeats, fetch });
  }

  // Jobs

  createJob(config, { idempotencyKey } = {}) {
    return this.#post("/jobs", { config }, keyed(idempotencyKey));
  }

  planJob(config) {
    return this.#post("/jobs/plan", { config });
  }

  getJob(jobId) {
    return this.#get(path("jobs", jobId));
  }

  listJobs({ status, provider, project, limit, cursor } = {}) {
    return this.#get("/jobs", { status, provider, project, limit, cursor });
  }

  cancelJob(jobId) {
    return this.#post(path("jobs", jobId, "cancel"), undefined, PATIENT);
  }

  pauseJob(jobId) {
    return this.#post(path("jobs", jobId, "pause"), undefined, PATIENT);
  }

  resumeJob(jobId) {
    return this.#post(path("jobs", jobId, "resume"), undefined, PATIENT);
  }

  retryJob(jobId, { maxCost, maxDuration } = {}) {
    const limits = { max_cost: maxCost, max_duration: maxDuration };
    const given = maxCost === undefined && maxDuration === undefined ? undefined : limits;
    return this.#post(path("jobs", jobId, "retry"), given, PATIENT);
  }

  cloneJob(jobId, changes = {}, { idempotencyKey } = {}) {
    return this.#post(path("jobs", jobId, "clone"), { config: changes }, keyed(idempotencyKey));
  }

  reproduceJob(jobId, { idempotencyKey } = {}) {
    return this.#post(path("jobs", jobId, "reproduce"), undefined, keyed(idempotencyKey));
  }

  reproduce(lineage, { idempotencyKey } = {}) {
    return this.#post("/jobs/reproduce", { lineage }, keyed(idempotencyKey));
  }

  /** Have an adapter deployed that the job's gate has refused; it takes an admin's key. */
  promoteJob(jobId, reason) {
    return this.#post(path("jobs", jobId, "promote"), { reason });
  }

  saveCheckpoint(jobId) {
    return this.#post(path("jobs", jobId, "checkpoint"), undefined, PATIENT);
  }

  async listCheckpoints(jobId) {
    return (await this.#get(path("jobs", jobId, "checkpoints"))).checkpoints;
  }

  getMetrics(jobId, { afterStep } = {}) {
    return this.#get(path("jobs", jobId, "metrics"), { after_step: afterStep });
  }

  async getLogs(jobId, { lines } = {}) {
    return (await this.#get(path("jobs", jobId, "logs"), { lines })).logs;
  }

  /** Yield a job's events from its beginning, or behind the cursor `after`, to its final status. */
  follow(jobId, options) {
    return follow(this.#requests, jobId, options);
  }

  // Data sets

  /** Upload a Blob or File, resumably, or a ReadableStream in one go. */
  uploadDataset(content, options) {
    const send = content instanceof Blob ? uploadBlob : uploadStream;
    return send(this.#requests, content, options);
  }

  getDataset(datasetId) {
    return this.#get(path("datasets", datasetId));
  }

  listDatasets({ limit, cursor } = {}) {
    return this.#get("/datasets", { limit, cursor });
  }

  previewDataset(datasetId, baseModel, { modelSource, limit, maxLength, columns, longRows } = {}) {
    const query = { base_model: baseModel, model_source: modelSource, limit, max_length: maxLength };
    Object.assign(query, { columns: columns && JSON.stringify(columns), long_rows: longRows });
    return this.#get(path("datasets", datasetId, "preview"), query, LONG);
  }

  deleteDataset(datasetId) {
    return this.#delete(path("datasets", datasetId));
  }

  // Adapters

  uploadAdapter(file, metadata, { config, idempotencyKey } = {}) {
    const form = new FormData();
    form.set("metadata", new Blob([JSON.stringify(metadata)], { type: "application/json" }), "metadata.json");
    form.set("file", file, file.name ?? "adapter.safetensors");
    if (config) form.set("config", config, "adapter_config.json");
    return this.#requests.json("POST", "/adapters/upload", { body: form, ...LONG, ...keyed(idempotencyKey) });
  }

  getAdapter(adapterId) {
    return this.#get(path("adapters", adapterId));
  }

  listAdapters({ jobId, limit, cursor } = {}) {
    return this.#get("/adapters", { job_id: jobId, limit, cursor });
  }

  /** Return the `Response` with an adapter's folder as a zip, or with one `file` of it: a stream, a Blob, as you like. */
  downloadAdapter(adapterId, { file } = {}) {
    return this.#requests.send("GET", path("adapters", adapterId, "download"), { query: { file }, ...LONG });
  }

  publishAdapter(adapterId, registries, { idempotencyKey } = {}) {
    return this.#post(path("adapters", adapterId, "publish"), { registries }, keyed(idempotencyKey));
  }

  deleteAdapter(adapterId) {
    return this.#delete(path("adapters", adapterId));
  }

  // Evaluations

  createEvaluation(wanted, { idempotencyKey } = {}) {
    return this.#post("/evaluations", wanted, keyed(idempotencyKey));
  }

  getEvaluation(evaluationId) {
    return this.#get(path("evaluations", evaluationId));
  }

  listEvaluations({ adapterId, status, limit, cursor } = {}) {
    return this.#get("/evaluations", { adapter_id: adapterId, status, limit, cursor });
  }

  cancelEvaluation(evaluationId) {
    return this.#post(path("evaluations", evaluationId, "cancel"));
  }

  deleteEvaluation(evaluationId) {
    return this.#delete(path("evaluations", evaluationId));
  }

  // Exports

  createExport(adapterId, config, { idempotencyKey } = {}) {
    return this.#post(path("adapters", adapterId, "exports"), config, keyed(idempotencyKey));
  }

  getExport(exportId) {
    return this.#get(path("exports", exportId));
  }

  listExports({ adapterId, status, limit, cursor } = {}) {
    return this.#get("/exports", { adapter_id: adapterId, status, limit, cursor });
  }

  /** Return the `Response` with an export's files as a zip, or with one `file` of it. */
  downloadExport(exportId, { file } = {}) {
    return this.#requests.send("GET", path("exports", exportId, "download"), { query: { file }, ...LONG });
  }

  cancelExport(exportId) {
    return this.#post(path("exports", exportId, "cancel"));
  }

  deleteExport(exportId) {
    return this.#delete(path("exports", exportId));
  }

  // Deployments

  createDeployment(adapterId, { platform = "local", config = {}, idempotencyKey } = {}) {
    return this.#post("/deployments", { adapter_id: adapterId, platform, config }, keyed(idempotencyKey));
  }

  getDeployment(deploymentId) {
    return this.#get(path("deployments", deploymentId));
  }

  listDeployments({ status, limit, cursor } = {}) {
    return this.#get("/deployments", { status, limit, cursor });
  }

  testDeployment(deploymentId, prompt, { maxTokens, temperature } = {}) {
    const body = { prompt, max_tokens: maxTokens, temperature };
    return this.#post(path("deployments", deploymentId, "test"), body, LONG);
  }

  renewDeployment(deploymentId, { leaseHours } = {}) {
    return this.#post(path("deployments", deploymentId, "renew"), { lease_hours: leaseHours });
  }

  /** With `force`, and an admin's key, one is forgotten that the studio cannot take off: see to it at its platform. */
  deleteDeployment(deploymentId, { force } = {}) {
    return this.#delete(path("deployments", deploymentId), { force });
  }

  // Experiments

  getExperiment(experimentId) {
    return this.#get(path("experiments", experimentId));
  }

  listExperiments({ tracker, project, status, limit, cursor } = {}) {
    return this.#get("/experiments", { tracker, project, status, limit, cursor });
  }

  async compareExperiments(experimentIds, { metric, direction, curves } = {}) {
    const body = { experiment_ids: experimentIds, metric, direction, curves };
    return (await this.#post("/experiments/compare", body)).comparison;
  }

  /** Return the `Response` with the curves of experiments as a picture. */
  comparisonPicture(experimentIds, { kind = "png", curves } = {}) {
    const query = { ids: [experimentIds].flat().join(","), curves: curves?.join(","), format: kind };
    return this.#requests.send("GET", "/experiments/compare", { query, ...PATIENT });
  }

  // Platforms, models, machines

  listPlatforms() {
    return this.#get("/platforms");
  }

  getPlatform(name) {
    return this.#get(path("platforms", name));
  }

  connectPlatform(name, credentials) {
    return this.#post(path("platforms", name, "connect"), { credentials }, PATIENT);
  }

  verifyPlatform(name) {
    return this.#post(path("platforms", name, "verify"), undefined, PATIENT);
  }

  disconnectPlatform(name) {
    return this.#delete(path("platforms", name));
  }

  searchModels(query = "", { source, limit, cursor } = {}) {
    return this.#get("/models/search", { q: query, source, limit, cursor }, PATIENT);
  }

  getModel(source, modelId, { revision } = {}) {
    return this.#get(path("models", source, ...modelId.split("/")), { revision }, PATIENT);
  }

  listResources({ provider, available } = {}) {
    return this.#get("/resources", { provider, available });
  }

  getPricing(provider, resourceId) {
    return this.#get(path("resources", provider, resourceId, "pricing"));
  }

  // Access

  createTicket() {
    return this.#post("/tickets");
  }

  listKeys({ limit, cursor } = {}) {
    return this.#get("/keys", { limit, cursor });
  }

  createKey(name, role = "write") {
    return this.#post("/keys", { name, role });
  }

  revokeKey(keyId) {
    return this.#delete(path("keys", keyId));
  }

  listMachines({ active, provider, limit } = {}) {
    return this.#get("/machines", { active, provider, limit });
  }

  settleMachine(name, cost) {
    return this.#post(path("machines", name, "settle"), { cost });
  }

  listBudgets() {
    return this.#get("/budgets");
  }

  putBudgets(budgets) {
    return this.#requests.json("PUT", "/budgets", { json: { budgets } });
  }

  // Sweeps and schedules

  createSweep(sweep, { idempotencyKey } = {}) {
    return this.#post("/sweeps", sweep, { ...LONG, ...keyed(idempotencyKey) });
  }

  getSweep(sweepId) {
    return this.#get(path("sweeps", sweepId));
  }

  listSweeps({ limit, cursor } = {}) {
    return this.#get("/sweeps", { limit, cursor });
  }

  async compareSweep(sweepId) {
    return (await this.#get(path("sweeps", sweepId, "comparison"))).comparison;
  }

  cancelSweep(sweepId) {
    return this.#post(path("sweeps", sweepId, "cancel"), undefined, PATIENT);
  }

  createSchedule(schedule, { idempotencyKey } = {}) {
    return this.#post("/schedules", schedule, keyed(idempotencyKey));
  }

  getSchedule(scheduleId) {
    return this.#get(path("schedules", scheduleId));
  }

  async listSchedules() {
    return (await this.#get("/schedules")).schedules;
  }

  changeSchedule(scheduleId, changes) {
    return this.#requests.json("PATCH", path("schedules", scheduleId), { json: changes });
  }

  pauseSchedule(scheduleId) {
    return this.#post(path("schedules", scheduleId, "pause"));
  }

  resumeSchedule(scheduleId) {
    return this.#post(path("schedules", scheduleId, "resume"));
  }

  deleteSchedule(scheduleId) {
    return this.#delete(path("schedules", scheduleId));
  }

  #get(where, query, options = {}) {
    return this.#requests.json("GET", where, { query, ...options });
  }

  #post(where, json, options = {}) {
    return this.#requests.json("POST", where, { json, ...options });
  }

  #delete(where, query = {}) {
    return this.#requests.json("DELETE", where, { query });
  }
}

const keyed = (key) => (key ? { headers: { "Idempotency-Key": key } } : {});
