//! What NVML calls return: the number, its name in the state file, and what nvmlErrorString says.

use std::ffi::CStr;

use nvml_wrapper_sys::bindings::nvmlReturn_t;
use serde::Deserialize;
use serde_json::Value;

/// A failed call's return code. The state file writes it as a name (`"gpu_is_lost"`) or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Code(pub(crate) nvmlReturn_t);

/// What a call found out.
pub(crate) type Answer<T> = Result<T, Code>;

/// A value that the card may not have.
pub(crate) trait Known<T> {
    /// The value, or `NOT_SUPPORTED` where the state file says null.
    fn known(self) -> Answer<T>;
}

impl<T> Known<T> for Option<T> {
    fn known(self) -> Answer<T> {
        self.ok_or(Code::NOT_SUPPORTED)
    }
}

/// What the C function returns.
pub(crate) fn returned(answer: impl FnOnce() -> Answer<()>) -> nvmlReturn_t {
    match answer() {
        Ok(()) => Code::SUCCESS.0,
        Err(code) => code.0,
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal $text:literal;)+) => {
        #[allow(dead_code, reason = "the table is whole; tests choose from it by name")]
        impl Code {
            $(pub(crate) const $name: Self = Self($number);)+

            /// What nvmlErrorString says.
            pub(crate) fn text(self) -> &'static CStr {
                match self.0 {
                    $($number => $text,)+
                    _ => c"Unknown Error",
                }
            }

            fn named(name: &str) -> Option<Self> {
                [$((stringify!($name), $number)),+]
                    .into_iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|(_, number)| Self(number))
            }
        }
    };
}

codes! {
    SUCCESS                   = 0   c"Success";
    UNINITIALIZED             = 1   c"Uninitialized";
    INVALID_ARGUMENT          = 2   c"Invalid Argument";
    NOT_SUPPORTED             = 3   c"Not Supported";
    NO_PERMISSION             = 4   c"Insufficient Permissions";
    ALREADY_INITIALIZED       = 5   c"Already Initialized";
    NOT_FOUND                 = 6   c"Not Found";
    INSUFFICIENT_SIZE         = 7   c"Insufficient Size";
    INSUFFICIENT_POWER        = 8   c"Insufficient External Power";
    DRIVER_NOT_LOADED         = 9   c"Driver Not Loaded";
    TIMEOUT                   = 10  c"Timeout";
    IRQ_ISSUE                 = 11  c"Interrupt Request Issue";
    LIBRARY_NOT_FOUND         = 12  c"NVML Shared Library Not Found";
    FUNCTION_NOT_FOUND        = 13  c"Function Not Found";
    CORRUPTED_INFOROM         = 14  c"Corrupted infoROM";
    GPU_IS_LOST               = 15  c"GPU is lost";
    RESET_REQUIRED            = 16  c"GPU requires reset";
    OPERATING_SYSTEM          = 17  c"GPU access blocked by the operating system";
    LIB_RM_VERSION_MISMATCH   = 18  c"Driver/library version mismatch";
    IN_USE                    = 19  c"In use by another client";
    MEMORY                    = 20  c"Insufficient Memory";
    NO_DATA                   = 21  c"No data";
    INSUFFICIENT_RESOURCES    = 23  c"Insufficient Resources";
    ARGUMENT_VERSION_MISMATCH = 25  c"Argument version mismatch";
    UNKNOWN                   = 999 c"Unknown Error";
}

impl TryFrom<Value> for Code {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let code = match &value {
            Value::String(name) if name == "ok" => Some(Self::SUCCESS),
            Value::String(name) => Self::named(name),
            Value::Number(number) => number
                .as_u64()
                .and_then(|code| u32::try_from(code).ok())
                .map(Self),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        code.ok_or_else(|| {
            format!("a return code must be a number or a name such as \"gpu_is_lost\", is {value}")
        })
    }
}
