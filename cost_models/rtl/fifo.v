// A queue of D words of W bits in a memory, and of one more in the output register; valid and ready at both ends.
// STYLE: 0 shift registers, 1 LUT memory, 2 block RAM, 3 UltraRAM. `count` is of the words in the memory.
module fifo #(
    parameter D = 16, W = 8, STYLE = 1, WC = $clog2(D + 1)
) (
    input  clk, reset, x_valid, y_ready,
    input  [W-1:0] x,
    output x_ready,
    output reg y_valid,
    output [W-1:0] y,
    output reg [WC-1:0] count
);
    localparam WA = $clog2(D);
    assign x_ready = count != D;
    wire free = ~y_valid | y_ready;
    wire push = x_valid & x_ready;
    wire load = free & (count != 0);
    always @(posedge clk)
        if (reset) y_valid <= 1'b0;
        else if (free) y_valid <= count != 0;
    always @(posedge clk)
        if (reset) count <= 0;
        else if (push != load) count <= count + {{(WC-1){load}}, 1'b1};
    generate
        if (STYLE == 0) begin : shifted
            // The place of the word that came first is one below how many there are.
            reg [WA-1:0] place;
            reg [W-1:0] last;
            wire [W-1:0] first;
            shift_register #(.D(D), .W(W)) queue (.clk(clk), .shift(push), .place(place), .x(x), .y(first));
            always @(posedge clk)
                if (reset) place <= {WA{1'b1}};
                else if (push != load) place <= place + {{WA{load}}, 1'b1};
            always @(posedge clk) if (load) last <= first;
            assign y = last;
        end else begin : addressed
            wire [WA-1:0] read_address, write_address;
            cycle #(.D(D)) reading (.clk(clk), .reset(reset), .enable(load), .y(read_address));
            cycle #(.D(D)) writing (.clk(clk), .reset(reset), .enable(push), .y(write_address));
            memory #(.D(D), .W(W), .STYLE(STYLE)) queue (
                .clk(clk), .read(load), .read_address(read_address), .y(y),
                .write(push), .write_address(write_address), .x(x)
            );
        end
    endgenerate
endmodule
