/** The JavaScript client of PEFT Studio: `Client`, and the errors that it throws. */

export { Client } from "./client.js";
export {
  AuthenticationFailed,
  Conflict,
  CredentialRefused,
  InsufficientCredits,
  InternalError,
  InvalidConfig,
  JobNotFound,
  NotFound,
  PayloadTooLarge,
  PermissionDenied,
  PlatformNotConnected,
  RateLimitExceeded,
  ResourceUnavailable,
  StudioError,
  TrainingFailed,
  Unreachable,
} from "./errors.js";
