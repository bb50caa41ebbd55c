/** Types of the JavaScript client of PEFT Studio. Fields are named as in the API's JSON; times are ISO 8601 in UTC. */

export type JobStatus = "pending" | "running" | "completed" | "failed" | "cancelled";

export interface TrainingConfig {
  base_model: string;
  dataset_path: string;
  model_source?: "huggingface" | "civitai" | "ollama" | "local";
  model_revision?: string | null;
  objective?: string;
  objective_options?: Record<string, boolean | number | string>;
  algorithm?: string;
  rank?: number;
  alpha?: number;
  dropout?: number;
  target_modules?: string[] | null;
  quantization?: "none" | "int8" | "int4" | "fp8" | "int8_weight_only" | null;
  learning_rate?: number;
  batch_size?: number;
  gradient_accumulation_steps?: number;
  num_epochs?: number;
  max_steps?: number | null;
  warmup_steps?: number;
  validation_split?: number;
  checkpoint_steps?: number;
  max_length?: number;
  seed?: number;
  provider?: string;
  resource_id?: string | null;
  spot?: boolean;
  max_cost?: number | null;
  max_duration?: number | null;
  experiment_tracker?: string | null;
  project_name?: string | null;
  output_dir?: string | null;
  test_prompt?: string | null;
  force?: boolean;
  /** Whatever else the studio's version knows. */
  [field: string]: unknown;
}

export interface Job {
  job_id: string;
  config: TrainingConfig;
  status: JobStatus;
  phase: string;
  progress: number;
  created_at: string;
  started_at: string | null;
  completed_at: string | null;
  duration_seconds: number | null;
  cost: number | null;
  metrics: Record<string, number>;
  artifact: { path: string; size_bytes: number; hash: string } | null;
  evaluation?: Record<string, unknown>;
  error?: { code: string; message: string; details: Record<string, unknown> };
  termination_reason?: string;
  parent_job_id?: string;
  adapter_id?: string;
  reused_from?: string;
  endpoint?: string;
  promotion?: Promotion;
  /** What was made for serve_target, where that takes something else than the adapter. */
  conversion?: { target: string; format: string; status: JobStatus; export_id?: string; error?: string };
  attempts: number;
  /** Every machine that was rented for it. */
  machines: Machine[];
}

export interface Machine {
  name: string;
  provider: string;
  resource_id: string;
  job_id: string;
  attempt: number;
  status: "intended" | "rented" | "ready" | "releasing" | "gone" | "never" | "stranded";
  spot: boolean;
  vram_gb?: number;
  machine_id?: string;
  /** In US dollars: as it was listed, and as it really is. */
  offered_rate: number;
  hourly_rate?: number;
  billing_increment: number;
  intended_at: string;
  rented_at?: string;
  ready_at?: string;
  released_at?: string;
  gone_at?: string;
  cost?: number | null;
  cost_from?: "vendor" | "rate" | "person";
  /** Whether it was taken away, or given up, before its work was done. */
  lost: boolean;
  reason: string;
  /** The admin's key with which it was closed by hand. */
  settled_by?: string;
  project?: string;
  key_id?: string;
}

export interface JobCreated {
  job_id: string;
  status: JobStatus;
  created_at: string;
  estimated_cost: number | null;
  estimated_duration_minutes: number | null;
}

/** What a job's gate said of its adapter; by `override`, who had it deployed all the same. */
export interface Promotion {
  rule: { measure: string; min_gain: number };
  allowed: boolean;
  reason: string;
  comparison: Measured | null;
  override: { key_id: string; key_name: string; at: string; reason: string } | null;
}

/** Both models by one measure, on the same rows; the interval is of `difference`, the adapter's less the base's. */
export interface Measured {
  base: number;
  adapter: number;
  difference: number;
  low: number | null;
  high: number | null;
  rows: number;
  /** Rows on which the two differ; null where there are no values row by row. */
  differing: number | null;
  better: "lower" | "higher";
}

export interface JobPromoted {
  success: boolean;
  job_id: string;
  deployment_id: string;
  promotion: Promotion;
}

/** `differences` are packages of another version here than where the adapter was trained. */
export interface JobReproduced extends JobCreated {
  differences: Record<string, { then: string | null; now: string | null }>;
}

export interface EvaluationWanted {
  adapter_id: string;
  /** A file, or a data set's id; by default the rows that the adapter's job held out. */
  dataset?: string;
  rows?: number;
  measures?: string[];
  generation_rows?: number;
  max_new_tokens?: number;
  bootstrap?: { resamples?: number; confidence?: number; seed?: number };
  lm_eval?: { tasks: string[]; limit?: number };
  judge?: { model: string; url?: string };
}

export interface Evaluation {
  evaluation_id: string;
  adapter_id: string;
  config: EvaluationWanted;
  status: JobStatus;
  step: string;
  progress: number;
  created_at: string;
  started_at: string | null;
  completed_at: string | null;
  result: {
    evaluation: { held_out_rows: number; comparison: Record<string, Measured> } & Record<string, unknown>;
    notes: string[];
    lm_eval: Record<string, Measured>;
    judge: { win_rate: number | null; low: number | null; high: number | null } & Record<string, unknown> | null;
  } | null;
  error: string | null;
}

export interface ExportConfig {
  format: "merged" | "gguf" | "ollama" | "lora";
  name?: string;
  weights?: string;
  gguf_type?: string;
  create?: boolean;
  rank?: number;
}

export interface Export {
  export_id: string;
  adapter_id: string;
  config: ExportConfig;
  status: JobStatus;
  step: string;
  progress: number;
  created_at: string;
  started_at?: string;
  completed_at?: string;
  path?: string;
  result?: Record<string, unknown>;
  error?: string;
}

export interface Range {
  low: number;
  expected: number;
  high: number;
}

export interface Estimate {
  /** In US dollars. */
  cost: Range;
  minutes: Range;
  /** Finished jobs on such machines that have corrected it. */
  measured_jobs: number;
}

export interface PlannedOffer {
  provider: string;
  resource_id: string;
  name: string;
  gpu_type: string | null;
  gpu_count: number;
  vram_gb: number | null;
  spot: boolean;
  hourly_rate: number;
  estimate: Estimate | null;
}

export interface JobPlan {
  config: TrainingConfig;
  model: { id: string; architecture: string; parameters: number; [field: string]: unknown };
  dataset: { path: string; rows: number; format: string; [field: string]: unknown };
  total_steps: number;
  estimated_cost: number | null;
  estimated_duration_minutes: number | null;
  /** Tokens that are trained on, all epochs together, estimated. */
  tokens: number | null;
  needed_vram_gb: number | null;
  /** Of a rented machine; null where nobody knows. */
  estimate: Estimate | null;
  /** The machines on which it costs least to finish. */
  offers: PlannedOffer[];
  /** What serve_target takes instead of the adapter; null where it takes it as it is. */
  conversion: { target: string; format: string; rank: number | null; reason: string } | null;
  cache_key: string;
  reused_from: string | null;
}

export interface JobChanged {
  success: boolean;
  job_id: string;
  status: JobStatus;
  phase?: string;
}

export interface Checkpoint {
  step: number;
  epoch: number;
  path: string;
  size_bytes: number;
  created_at: string;
  loss: number | null;
}

interface Message {
  job_id: string;
  timestamp: string;
  /** Where `follow` goes on behind this event: give it as `after`. */
  cursor?: string;
}
export interface StatusEvent extends Message {
  type: "status";
  status: JobStatus;
  phase?: string;
}
export interface MetricsEvent extends Message {
  type: "metrics";
  metrics: Record<string, number>;
}
export interface LogEvent extends Message {
  type: "log";
  level: "DEBUG" | "INFO" | "WARNING" | "ERROR";
  message: string;
}
export interface FailureEvent extends Message {
  type: "error";
  error: string;
  details: string;
  code: string;
}
export type Event = StatusEvent | MetricsEvent | LogEvent | FailureEvent;

export interface Dataset {
  dataset_id: string;
  name: string;
  format: string;
  file_type: "json" | "jsonl" | "csv" | "parquet";
  rows: number;
  size_bytes: number;
  sha256: string;
  characters: number;
  created_at: string;
  path: string;
}

export interface DatasetPreview {
  base_model: string;
  samples: {
    row: number;
    text: string;
    tokens: { id: number; text: string; loss: boolean }[];
    supervised_tokens: number;
    truncated: boolean;
  }[];
  examined_rows: number;
  tokens: number;
  supervised_share: number;
  truncated_rows: number;
  dropped_rows: number;
  split_rows: number;
  duplicate_rows: number[];
  empty_rows: number[];
}

export interface Adapter {
  id: string;
  job_id: string | null;
  name: string;
  base_model: string;
  algorithm: string;
  objective: string;
  path: string;
  size_bytes: number;
  created_at: string;
  metadata: { rank: number; alpha: number; target_modules: string[] };
}

export interface AdapterMetadata {
  base_model: string;
  model_revision?: string;
  name?: string;
  algorithm?: string;
  rank?: number;
  alpha?: number;
  target_modules?: string[];
  job_id?: string;
  chat?: boolean;
}

export interface DeploymentConfig {
  instance_type?: string | null;
  min_replicas?: number;
  max_replicas?: number;
  auto_scaling?: boolean;
  lease_hours?: number | null;
}

export interface DeploymentCreated {
  deployment_id: string;
  status: string;
  endpoint: string | null;
  estimated_ready_time: string | null;
}

export interface Deployment {
  deployment_id: string;
  adapter_id: string;
  platform: string;
  config: DeploymentConfig;
  status: string;
  endpoint: string | null;
  engine: "endpoint" | "vllm" | null;
  error: string | null;
  reason: string | null;
  effect: {
    verdict: "effective" | "no_effect" | "diverged" | null;
    reason: string;
    effect: number | null;
    deviation: number | null;
    tolerance: number | null;
  } | null;
  created_at: string;
  expires_at: string | null;
  warning: string | null;
  flow_run_id: string | null;
  metrics: {
    requests_per_minute: number | null;
    avg_latency_ms: number | null;
    cost_per_hour: number | null;
    measured_by: "platform" | "studio" | null;
  };
}

export interface Experiment {
  id: string;
  tracker: string;
  project: string;
  name: string;
  status: string;
  metrics: Record<string, number | null>;
  config: TrainingConfig;
  created_at: string;
  job_id: string | null;
  cost: number | null;
  duration_seconds: number | null;
  url: string | null;
}

export interface Comparison {
  metrics: Record<string, (number | null)[]>;
  configs: TrainingConfig[];
  best_performer: string | null;
  cost_analysis: { total_costs: (number | null)[]; cost_per_accuracy_point: (number | null)[] };
  experiment_ids: string[];
  config_differences: Record<string, unknown[]>;
  metric: string;
  direction: string;
  curves: Record<string, { steps: number[]; values: (number | null)[][] }>;
}

export interface Platform {
  name: string;
  display_name: string;
  status: string;
  features: string[];
  supported_features: string[];
  last_verified: string | null;
  error: string | null;
  /** What connecting takes. */
  credentials: { name: string; description: string; required: boolean; secret: boolean }[];
  docs: string | null;
}

export interface FoundModel {
  id: string;
  name: string;
  source: string;
  size_gb: number | null;
  license: string | null;
  downloads: number | null;
  tags: string[];
  gated: boolean | null;
}

export interface ModelDetails extends FoundModel {
  description: string | null;
  revision: string | null;
  architecture: string | null;
  parameters: number | null;
  context_length: number | null;
  has_chat_template: boolean | null;
  hardware_requirements: {
    min_vram_gb: number;
    recommended_vram_gb: number;
    vram: { algorithm: string; quantization: string; min_gb: number; recommended_gb: number }[];
  } | null;
  compatible_algorithms: string[];
  target_modules: string[];
  /** Why no algorithm is compatible. */
  not_trainable: string | null;
}

export interface Pricing {
  hourly_rate: number;
  /** Null where machines that may be taken away cost no less. */
  spot_hourly_rate: number | null;
  currency: string;
  billing_increment: number;
  minimum_charge: number;
}

export interface Resource {
  id: string;
  provider: string;
  name: string;
  gpu_type: string | null;
  gpu_count: number;
  vram_gb: number | null;
  cpu_cores: number | null;
  ram_gb: number | null;
  storage_gb: number | null;
  available: boolean;
  pricing: Pricing;
}

export type Distribution =
  | { distribution: "choice"; values: unknown[] }
  | { distribution: "uniform" | "log_uniform" | "integer"; low: number; high: number };

export interface EarlyStopping {
  rungs: number[];
  reduction_factor?: number;
}

interface SweepAims {
  name?: string;
  config: TrainingConfig;
  metric?: string;
  direction?: "maximize" | "minimize";
  parallel?: number;
  budget?: number;
  early_stopping?: EarlyStopping;
}

/** Exactly one of `grid`, `random` and `points`. */
export interface SweepConfig extends SweepAims {
  grid?: Record<string, unknown[]>;
  random?: { samples: number; seed?: number; parameters: Record<string, Distribution> };
  points?: Record<string, unknown>[];
}

export interface SweepPoint {
  number: number;
  changes: Record<string, unknown>;
  status: JobStatus | "waiting" | "stopped" | "refused";
  job_id?: string;
  experiment_id?: string;
  progress: number;
  value?: number;
  rungs: Record<string, number>;
  cost?: number | null;
  reason?: string;
}

export interface Sweep extends SweepAims {
  sweep_id: string;
  status: JobStatus;
  created_at: string;
  started_at?: string | null;
  completed_at?: string | null;
  duplicates: number;
  points: SweepPoint[];
  best?: number;
  cost?: number | null;
  message?: string;
}

export interface SweepSummary {
  sweep_id: string;
  name?: string;
  status: JobStatus;
  created_at: string;
  completed_at?: string | null;
  metric: string;
  direction: "maximize" | "minimize";
  points: number;
  message?: string;
}

export interface ScheduleConfig {
  name?: string;
  config: TrainingConfig;
  cron: string;
  timezone?: string;
  overlap?: "skip" | "queue";
  active?: boolean;
}

export interface Schedule extends ScheduleConfig {
  schedule_id: string;
  key_id?: string;
  created_at: string;
  next_runs: string[];
  last_runs: { scheduled_at: string; status: string; job_id?: string | null; reason?: string | null }[];
}

export interface Budget {
  scope: "key" | "project";
  /** The API key's id, or the project's name. */
  id: string;
  monthly_usd: number;
}

export interface BudgetState extends Budget {
  spent_usd: number;
  /** What jobs that have not ended may still cost. */
  held_usd: number;
}

export interface Key {
  id: string;
  name: string;
  role: "read" | "write" | "admin";
  created_at: string;
  revoked_at: string | null;
  last_used_at: string | null;
}

export interface Page {
  limit?: number;
  /** A page's `next_cursor`: the page behind it. */
  cursor?: string;
}

export interface Repeatable {
  /** A key of your own makes the very same call safe to repeat, even by another process. */
  idempotencyKey?: string;
}

export interface ClientOptions {
  /** As `http://127.0.0.1:8000`. */
  url: string;
  apiKey: string;
  /** Milliseconds; 30,000 by default. */
  timeout?: number;
  /** How often a request that failed for a moment is sent again; 3 by default. */
  repeats?: number;
  fetch?: typeof globalThis.fetch;
}

export interface FollowOptions {
  /** The `cursor` of an event seen before: the stream goes on behind it. */
  after?: string;
  /** By default a WebSocket where there is one, else Server-Sent Events. */
  transport?: "websocket" | "sse";
  signal?: AbortSignal;
}

export interface DatasetUpload {
  /** With the ending that tells its type, as `rows.jsonl`; by default the file's own. */
  name?: string;
  /** Of a Blob: how many bytes of how many have arrived. */
  onProgress?: (sent: number, total: number) => void;
  /** Go on with an upload that was cut off: the error's `details.upload_id`. */
  uploadId?: string;
  pieceBytes?: number;
}

export class Client {
  constructor(options: ClientOptions);

  /** Submit a job; the answer has its id and what it is expected to cost and to take. */
  createJob(config: TrainingConfig, options?: Repeatable): Promise<JobCreated>;
  /** Check a configuration and estimate what it takes; creates nothing. */
  planJob(config: TrainingConfig): Promise<JobPlan>;
  getJob(jobId: string): Promise<Job>;
  /** Newest first. */
  listJobs(
    options?: Page & { status?: JobStatus; provider?: string; project?: string },
  ): Promise<{ jobs: Job[]; total: number; next_cursor: string | null }>;
  /** Stop a job; its last checkpoint is kept. */
  cancelJob(jobId: string): Promise<JobChanged>;
  /** Save a checkpoint and give the job's machine back, until it is resumed. */
  pauseJob(jobId: string): Promise<JobChanged>;
  resumeJob(jobId: string): Promise<JobChanged>;
  /** Let a failed or cancelled job go on from its last checkpoint. */
  /** The limits, in US dollars and minutes, are those of all attempts together. */
  retryJob(jobId: string, limits?: { maxCost?: number; maxDuration?: number }): Promise<JobChanged>;
  /** Submit a job like another one, with some fields changed. */
  cloneJob(jobId: string, changes?: Partial<TrainingConfig>, options?: Repeatable): Promise<JobCreated>;
  /** Train a job's adapter again from its lineage, on the very base model and data; tell what else differs. */
  reproduceJob(jobId: string, options?: Repeatable): Promise<JobReproduced>;
  /** The same from the `lineage.json` that travels with an adapter. */
  reproduce(lineage: Record<string, unknown>, options?: Repeatable): Promise<JobReproduced>;
  /** Have an adapter deployed that the job's gate has refused; it takes an admin's key, and is recorded. */
  promoteJob(jobId: string, reason: string): Promise<JobPromoted>;
  /** Have a running job save a checkpoint now; it goes on training. */
  saveCheckpoint(jobId: string): Promise<{ success: boolean; job_id: string; checkpoint: Checkpoint }>;
  listCheckpoints(jobId: string): Promise<Checkpoint[]>;
  getMetrics(
    jobId: string,
    options?: { afterStep?: number },
  ): Promise<{ job_id: string; metrics: Record<string, number | string>[] }>;
  /** The newest log lines, oldest first. */
  getLogs(jobId: string, options?: { lines?: number }): Promise<LogEvent[]>;
  /** Yield a job's events to its final status; connects again where it was cut off. */
  follow(jobId: string, options?: FollowOptions): AsyncGenerator<Event, void, undefined>;

  /** Upload a Blob or File, resumably, or a stream in one go; its rows are checked before it is there. */
  uploadDataset(content: Blob | ReadableStream<Uint8Array>, options?: DatasetUpload): Promise<Dataset>;
  getDataset(datasetId: string): Promise<Dataset>;
  listDatasets(options?: Page): Promise<{ datasets: Dataset[]; next_cursor: string | null }>;
  /** Rows as a base model will see them, with the tokens that carry loss marked. */
  previewDataset(
    datasetId: string,
    baseModel: string,
    options?: {
      modelSource?: string;
      limit?: number;
      maxLength?: number;
      columns?: Record<string, string>;
      longRows?: "truncate" | "drop" | "split";
    },
  ): Promise<DatasetPreview>;
  deleteDataset(datasetId: string): Promise<{ success: boolean; dataset_id: string }>;

  /** Upload an adapter's weights (safetensors); `config` is its adapter_config.json. */
  uploadAdapter(
    file: Blob,
    metadata: AdapterMetadata,
    options?: Repeatable & { config?: Blob },
  ): Promise<{ adapter_id: string; registry_url: string; success: boolean }>;
  getAdapter(adapterId: string): Promise<Adapter>;
  listAdapters(options?: Page & { jobId?: string }): Promise<{ adapters: Adapter[]; next_cursor: string | null }>;
  /** The response with an adapter's folder as a zip, or with one file of it. */
  downloadAdapter(adapterId: string, options?: { file?: string }): Promise<Response>;
  /** Have an adapter sent to registries; `getAdapter` tells what came of it. */
  publishAdapter(
    adapterId: string,
    registries: Record<string, unknown>[],
    options?: Repeatable,
  ): Promise<Record<string, unknown>>;
  deleteAdapter(adapterId: string): Promise<{ success: boolean; adapter_id: string }>;

  /** Have an adapter measured beside its base model; `getEvaluation` shows what came of it. */
  createEvaluation(wanted: EvaluationWanted, options?: Repeatable): Promise<Evaluation>;
  getEvaluation(evaluationId: string): Promise<Evaluation>;
  listEvaluations(
    options?: Page & { adapterId?: string; status?: JobStatus },
  ): Promise<{ evaluations: Evaluation[]; next_cursor: string | null }>;
  cancelEvaluation(evaluationId: string): Promise<Evaluation>;
  deleteEvaluation(evaluationId: string): Promise<{ success: boolean; evaluation_id: string }>;

  /** Have an adapter made into what others load; `getExport` shows how far it is. */
  createExport(adapterId: string, config: ExportConfig, options?: Repeatable): Promise<Export>;
  getExport(exportId: string): Promise<Export>;
  listExports(
    options?: Page & { adapterId?: string; status?: JobStatus },
  ): Promise<{ exports: Export[]; next_cursor: string | null }>;
  /** The response with an export's files as a zip, or with one file of it. */
  downloadExport(exportId: string, options?: { file?: string }): Promise<Response>;
  cancelExport(exportId: string): Promise<Export>;
  deleteExport(exportId: string): Promise<{ success: boolean; export_id: string }>;

  createDeployment(
    adapterId: string,
    options?: Repeatable & { platform?: string; config?: DeploymentConfig },
  ): Promise<DeploymentCreated>;
  getDeployment(deploymentId: string): Promise<Deployment>;
  listDeployments(
    options?: Page & { status?: string },
  ): Promise<{ deployments: Deployment[]; next_cursor: string | null }>;
  testDeployment(
    deploymentId: string,
    prompt: string,
    options?: { maxTokens?: number; temperature?: number },
  ): Promise<{ response: string; latency_ms: number; tokens_generated: number }>;
  renewDeployment(deploymentId: string, options?: { leaseHours?: number }): Promise<Deployment>;
  /** With `force`, and an admin's key, one is forgotten that the studio cannot take off: see to it at its platform. */
  deleteDeployment(deploymentId: string, options?: { force?: boolean }): Promise<{ success: boolean; deployment_id: string }>;

  getExperiment(experimentId: string): Promise<Experiment>;
  listExperiments(
    options?: Page & { tracker?: string; project?: string; status?: JobStatus },
  ): Promise<{ experiments: Experiment[]; next_cursor: string | null }>;
  compareExperiments(
    experimentIds: string[],
    options?: { metric?: string; direction?: "maximize" | "minimize"; curves?: string[] },
  ): Promise<Comparison>;
  /** The response with the curves of experiments as a picture. */
  comparisonPicture(
    experimentIds: string[],
    options?: { kind?: "png" | "svg"; curves?: string[] },
  ): Promise<Response>;

  listPlatforms(): Promise<{ platforms: Platform[] }>;
  getPlatform(name: string): Promise<Platform>;
  /** The credentials are checked with the platform, and kept encrypted. */
  connectPlatform(
    name: string,
    credentials: Record<string, string>,
  ): Promise<{ success: boolean; platform: string; status: string }>;
  /** Try a platform's stored credentials again. */
  verifyPlatform(name: string): Promise<Platform>;
  disconnectPlatform(name: string): Promise<{ success: boolean; message: string }>;
  searchModels(
    query?: string,
    options?: Page & { source?: string },
  ): Promise<{
    models: FoundModel[];
    total: number;
    page: number;
    next_cursor: string | null;
    unavailable_sources: { source: string; reason: string }[];
  }>;
  getModel(source: string, modelId: string, options?: { revision?: string }): Promise<ModelDetails>;
  listResources(options?: { provider?: string; available?: boolean }): Promise<{
    resources: Resource[];
    /** Connected providers that have not said which machines they have. */
    unavailable_providers: { provider: string; reason: string }[];
  }>;
  getPricing(
    provider: string,
    resourceId: string,
  ): Promise<{
    resource_id: string;
    provider: string;
    pricing: Pricing;
    availability: { available: boolean; queue_length: number; estimated_wait_minutes: number | null };
  }>;

  /** Good for one WebSocket within a minute. */
  createTicket(): Promise<{ ticket: string; expires_at: string }>;
  /** With a key of the role admin, as the two below. */
  listKeys(options?: Page): Promise<{ keys: Key[]; next_cursor: string | null }>;
  /** The secret in `key` cannot be shown again. */
  createKey(name: string, role?: Key["role"]): Promise<Key & { key: string }>;
  revokeKey(keyId: string): Promise<{ success: boolean; id: string }>;
  listMachines(options?: { active?: boolean; provider?: string; limit?: number }): Promise<{ machines: Machine[] }>;
  /** Close the receipt of a machine that is stranded and gone, in US dollars; with a key of the role admin. */
  settleMachine(name: string, cost: number): Promise<Machine>;
  /** What rented machines may cost in a calendar month (UTC). */
  listBudgets(): Promise<{ budgets: BudgetState[] }>;
  /** Has these budgets and no others; with a key of the role admin. */
  putBudgets(budgets: Budget[]): Promise<{ budgets: BudgetState[] }>;

  /** Check every point of a sweep over hyperparameters, and start it. */
  createSweep(sweep: SweepConfig, options?: Repeatable): Promise<Sweep>;
  getSweep(sweepId: string): Promise<Sweep>;
  /** Newest first. */
  listSweeps(options?: Page): Promise<{ sweeps: SweepSummary[]; next_cursor: string | null }>;
  /** All points that have jobs, side by side, by the sweep's metric. */
  compareSweep(sweepId: string): Promise<Comparison>;
  /** With all its jobs. */
  cancelSweep(sweepId: string): Promise<{ success: boolean; sweep_id: string; status: JobStatus }>;

  /** Have a configuration become a job whenever its time comes. */
  createSchedule(schedule: ScheduleConfig, options?: Repeatable): Promise<Schedule>;
  getSchedule(scheduleId: string): Promise<Schedule>;
  listSchedules(): Promise<Schedule[]>;
  /** What is left out stays; this key's budget pays from then on. */
  changeSchedule(scheduleId: string, changes: Partial<ScheduleConfig>): Promise<Schedule>;
  pauseSchedule(scheduleId: string): Promise<Schedule>;
  resumeSchedule(scheduleId: string): Promise<Schedule>;
  /** Jobs that it has started go on. */
  deleteSchedule(scheduleId: string): Promise<{ success: boolean; schedule_id: string }>;
}

export class StudioError extends Error {
  readonly code: string;
  /** Whatever helps: `field`, `issue`, `row`, `retry_after_seconds`, … */
  readonly details: Record<string, unknown>;
  /** The HTTP status, where there was an answer. */
  readonly status: number | null;
}
export class InvalidConfig extends StudioError {}
export class AuthenticationFailed extends StudioError {}
/** A platform refused the credentials that it was to be connected with. */
export class CredentialRefused extends AuthenticationFailed {}
export class PermissionDenied extends StudioError {}
export class NotFound extends StudioError {}
export class JobNotFound extends NotFound {}
export class Conflict extends StudioError {}
export class PayloadTooLarge extends StudioError {}
export class RateLimitExceeded extends StudioError {}
export class PlatformNotConnected extends StudioError {}
export class InsufficientCredits extends StudioError {}
export class ResourceUnavailable extends StudioError {}
/** Nobody answers, or not in time. */
export class Unreachable extends ResourceUnavailable {}
export class TrainingFailed extends StudioError {}
export class InternalError extends StudioError {}
