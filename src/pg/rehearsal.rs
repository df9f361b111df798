//! Work that is done and undone, to see what would come of it.

use pgrx::pg_sys;

/// Runs `work` and undoes what it did, on error too.
pub fn rehearse<T>(work: impl FnOnce() -> T) -> T {
    /// A subtransaction that ends with its scope: whoever catches an error outside finds his own one current.
    struct Stage {
        memory: pg_sys::MemoryContext,
        owner: pg_sys::ResourceOwner,
    }
    impl Drop for Stage {
        fn drop(&mut self) {
            // SAFETY: ends the subtransaction begun below; what began in it has ended.
            unsafe {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
                pg_sys::CurrentMemoryContext = self.memory;
                pg_sys::CurrentResourceOwner = self.owner;
            }
        }
    }
    // SAFETY: variables of the backend; a function is called in a transaction.
    let _stage = unsafe {
        let stage = Stage { memory: pg_sys::CurrentMemoryContext, owner: pg_sys::CurrentResourceOwner };
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = stage.memory;
        stage
    };
    work()
}
