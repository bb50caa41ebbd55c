/** What can go wrong: one class a code of the API. `message` says what, `details` names the field and helps on. */

export class StudioError extends Error {
  static code = "INTERNAL_ERROR";

  constructor(message, { code, details = {}, status = null, cause } = {}) {
    super(message, { cause });
    this.name = new.target.name;
    this.code = code ?? new.target.code;
    this.details = details;
    this.status = status;
  }
}

export class InvalidConfig extends StudioError {
  static code = "INVALID_CONFIG";
}

export class AuthenticationFailed extends StudioError {
  static code = "AUTHENTICATION_FAILED";
}

/** A platform refused the credentials that it was to be connected with. */
export class CredentialRefused extends AuthenticationFailed {}

export class PermissionDenied extends StudioError {
  static code = "PERMISSION_DENIED";
}

export class NotFound extends StudioError {
  static code = "NOT_FOUND";
}

export class JobNotFound extends NotFound {
  static code = "JOB_NOT_FOUND";
}

export class Conflict extends StudioError {
  static code = "CONFLICT";
}

export class PayloadTooLarge extends StudioError {
  static code = "PAYLOAD_TOO_LARGE";
}

export class RateLimitExceeded extends StudioError {
  static code = "RATE_LIMIT_EXCEEDED";
}

export class PlatformNotConnected extends StudioError {
  static code = "PLATFORM_NOT_CONNECTED";
}

export class InsufficientCredits extends StudioError {
  static code = "INSUFFICIENT_CREDITS";
}

export class ResourceUnavailable extends StudioError {
  static code = "RESOURCE_UNAVAILABLE";
}

/** Nobody answers, or not in time. */
export class Unreachable extends ResourceUnavailable {}

export class TrainingFailed extends StudioError {
  static code = "TRAINING_FAILED";
}

export class InternalError extends StudioError {}

const KINDS = [
  InvalidConfig,
  AuthenticationFailed,
  PermissionDenied,
  NotFound,
  JobNotFound,
  Conflict,
  PayloadTooLarge,
  RateLimitExceeded,
  PlatformNotConnected,
  InsufficientCredits,
  ResourceUnavailable,
  TrainingFailed,
  InternalError,
];
const BY_CODE = new Map(KINDS.map((kind) => [kind.code, kind]));

/** Make the error that has this code. */
export function errorWith(code, message, details = {}, status = null) {
  const ofPlatform = code === AuthenticationFailed.code && "platform" in details;
  const kind = ofPlatform ? CredentialRefused : (BY_CODE.get(code) ?? StudioError);
  return new kind(message, { code, details, status });
}
