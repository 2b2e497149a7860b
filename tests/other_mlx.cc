/* What an older libmlx says of itself; test_mlx_pipeline puts it before the real one. */
namespace mlx::core
{
__attribute__((visibility("default"))) const char *version()
{
    return "0.31.2";
}
} // namespace mlx::core
